"""Authorities of our own, and certificates of servers that they issue (X.509, ECDSA P-256)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.files import write_private, write_public


class Certified(NamedTuple):
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class Validity(NamedTuple):
    """From an hour before ``now`` until ``days`` after it."""

    now: datetime
    days: int


def make_authority(name: str, validity: Validity, domains: Sequence[str] = ()) -> Certified:
    """Return an authority; with ``domains`` it speaks for these names and those below alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = (
        _begin(subject, subject, key, validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if domains:
        # For addresses there is no such rule: BoringSSL refuses the whole chain if there is, and
        # grpcio stands on it (`findings/boringssl_refuses_address_constraints.sh`).
        permitted = x509.NameConstraints([x509.DNSName(domain) for domain in domains], None)
        builder = builder.add_extension(permitted, critical=True)
    return Certified(key, builder.sign(key, hashes.SHA256()))


def issue(
    authority: Certified,
    name: str,
    hosts: Sequence[str],
    validity: Validity,
    *,
    is_client: bool = False,
) -> Certified:
    """Return the certificate of a server for ``hosts``, names and addresses.

    With ``is_client`` it also proves who a server is that connects to another one.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
    if is_client:
        purposes.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _begin(_name(name), authority.certificate.subject, key, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Certified(key, certificate)


def read_certified(key_file: Path, file: Path) -> Certified | None:
    """Return what `write_certified` wrote, `None` if the files are missing or do not fit."""
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    is_pair = isinstance(key, ec.EllipticCurvePrivateKey) and (
        key.public_key() == certificate.public_key()
    )
    return Certified(key, certificate) if is_pair else None  # type: ignore[arg-type]


def write_certified(key_file: Path, file: Path, made: Certified) -> None:
    """Write both as PEM; the key can be read by its owner only. Raises OSError."""
    write_private(key_file, key_pem(made).decode())
    write_public(file, certificate_pem(made))


def key_pem(made: Certified) -> bytes:
    """Return the key as PEM (PKCS #8)."""
    return made.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate_pem(made: Certified) -> bytes:
    """Return the certificate as PEM."""
    return made.certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _begin(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.now - timedelta(hours=1))
        .not_valid_after(validity.now + timedelta(days=validity.days))
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
