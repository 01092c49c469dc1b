"""The certificates of `gateway dev --tls`: of an authority for the names of this machine alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from runtime.certificates import Validity, issue, make_authority, read_certified, write_certified

_DOMAIN = "localhost"
"""Whoever gets the authority's key can still speak for no other machine's name."""
_HOSTS = (_DOMAIN, "*.invocation.localhost", "127.0.0.1")
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
    authority = read_certified(folder / "ca.key", found.authority)
    if authority is None or not _lasts(authority.certificate, now):
        authority = make_authority(
            "gateway dev authority", Validity(now, _AUTHORITY_DAYS), (_DOMAIN,)
        )
        write_certified(folder / "ca.key", found.authority, authority)
        own = None
    else:
        own = read_certified(found.key, found.chain)
    if own is None or not _lasts(own.certificate, now):
        own = issue(authority, "gateway dev", _HOSTS, Validity(now, _DAYS))
        write_certified(found.key, found.chain, own)
    return found


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc > now + timedelta(days=_RENEW_DAYS)
