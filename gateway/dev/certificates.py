"""The certificates of `gateway dev --tls`: of an authority for the names of this machine alone."""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOSTS = ("localhost", "*.invocation.localhost")
_ADDRESS = IPv4Address("127.0.0.1")
_AUTHORITY_DAYS = 3650
_DAYS = 90
_RENEW_DAYS = 30


class DevCertificates(NamedTuple):
    """``authority`` is what clients have to trust; ``chain`` and ``key`` are the gateway's."""

    authority: Path
    chain: Path
    key: Path


def make_certificates(folder: Path) -> DevCertificates:
    """Return the files of an authority and a certificate, made in ``folder`` unless they are there.

    The authority stays the same, so that who trusts it need not do so again; the certificate is
    renewed in time. Raises `OSError`.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = DevCertificates(folder / "ca.pem", folder / "gateway.crt", folder / "gateway.key")
    now = datetime.now(UTC)
    authority = _read(folder / "ca.key", found.authority)
    if authority is None or not _lasts(authority[1], now):
        authority = _make_authority(now)
        _write(folder / "ca.key", found.authority, *authority)
        own = None
    else:
        own = _read(found.key, found.chain)
    if own is None or not _lasts(own[1], now):
        _write(found.key, found.chain, *_make_own(*authority, now))
    return found


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc > now + timedelta(days=_RENEW_DAYS)


_Pair = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def _read(key_file: Path, file: Path) -> _Pair | None:
    """Return a key and its certificate, `None` if they are not there or unusable."""
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    is_pair = isinstance(key, ec.EllipticCurvePrivateKey) and (
        key.public_key() == certificate.public_key()
    )
    return (key, certificate) if is_pair else None  # type: ignore[return-value]


def _write(
    key_file: Path, file: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(pem)
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _make_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway dev authority")])
    # Whoever gets its key can still speak for no other machine's name. For addresses there is no
    # such rule: BoringSSL refuses the whole chain if there is, and grpcio stands on it
    # (`findings/boringssl_refuses_address_constraints.sh`).
    permitted = x509.NameConstraints([x509.DNSName("localhost")], None)
    certificate = (
        _begin(name, name, key, now, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(permitted, critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _make_own(
    authority_key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, now: datetime
) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway dev")])
    names = [*map(x509.DNSName, _HOSTS), x509.IPAddress(_ADDRESS)]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _begin(name, authority.subject, key, now, _DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return key, certificate


def _begin(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
