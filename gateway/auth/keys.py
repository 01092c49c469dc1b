"""API keys: their format, their stored digest, and the principal of a key.

A key is ``nvapi-``, 43 characters of base64url (32 random bytes) and 6 more of checksum (CRC-32),
so that a program can detect a mistyped key without a look-up. Only the SHA-256 is stored: a hash of
256 random bits needs neither salt nor stretching.
"""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from zlib import crc32

from gateway.domain.principal import API_KEY, Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import Unauthenticated

PREFIX = b"nvapi-"
RANDOM_BYTES = 32

_bearer = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)").fullmatch
"""RFC 6750 §2.1; the scheme is case-insensitive (RFC 9110 §11.1)."""
_key = re.compile(rb"nvapi-[A-Za-z0-9_-]{49}").fullmatch


def new_key(random32: bytes) -> str:
    """Return the key made of 32 random bytes; the caller shows it once and never stores it."""
    if len(random32) != RANDOM_BYTES:
        raise ValueError(f"a key needs {RANDOM_BYTES} random bytes, not {len(random32)}")
    body = PREFIX + urlsafe_b64encode(random32).rstrip(b"=")
    return (body + _checksum(body)).decode()


def is_key(text: bytes) -> bool:
    """Return whether ``text`` has a key's format and checksum; it may still be unknown."""
    return _key(text) is not None and _checksum(text[:-6]) == text[-6:]


def digest_of(key: bytes) -> bytes:
    """Return the SHA-256 under which a key is stored."""
    return sha256(key).digest()


def bearer_of(authorization: bytes) -> bytes | None:
    """Return the token of an ``Authorization: Bearer`` value, `None` for anything else."""
    match = _bearer(authorization)
    return None if match is None else match[1]


def principal_of(model: ReadModel, text: bytes, now: float) -> Principal:
    """Return the principal of the API key ``text``; ``now`` is Unix time in seconds.

    Raises `Unauthenticated`, the same for an unknown, expired and revoked key. The digest is looked
    up without a constant-time comparison: a caller who cannot invert SHA-256 cannot choose it, so
    the timing reveals nothing.
    """
    digest = sha256(text).digest()
    key = model.key(digest)
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        raise Unauthenticated
    return Principal(key.account, key.subject, key.scopes, key.reach, API_KEY, digest, key.key_id)


def _checksum(body: bytes) -> bytes:
    return urlsafe_b64encode(crc32(body).to_bytes(4, "big")).rstrip(b"=")
