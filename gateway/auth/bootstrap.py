"""The bootstrap secret: the first credential, with which the first admin tokens are made.

It is generated at the very first start and printed once, or given by the settings; and stored only
as its SHA-256: a hash of 256 random bits needs neither salt nor stretching.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest

from gateway.auth.scopes import BOOTSTRAP
from gateway.domain.documents import SCHEMA, RecordError, read
from gateway.domain.model import ResourceScope
from gateway.domain.principal import Principal
from gateway.errors import Unauthenticated

PREFIX = b"nvboot-"
RANDOM_BYTES = 32
NAME = "bootstrap"
"""Key of the digest's record in the store's bucket ``meta``."""

MAX_REPLACED = 16
"""Replaced secrets that the record knows; a setting with an older one brings it back."""

_is_secret = re.compile(rf"{PREFIX.decode()}[A-Za-z0-9_-]{{43,128}}").fullmatch
_NOTHING: Mapping[str, object] = {}
_PRINCIPAL = Principal("", NAME, frozenset({BOOTSTRAP}), ResourceScope(), NAME)


def new_secret(random32: bytes) -> str:
    """Return the secret made of 32 random bytes; the caller shows it once and never stores it."""
    if len(random32) != RANDOM_BYTES:
        raise ValueError(f"a bootstrap secret needs {RANDOM_BYTES} random bytes")
    return (PREFIX + urlsafe_b64encode(random32).rstrip(b"=")).decode()


def is_secret(text: str) -> bool:
    """Whether ``text`` has the form of a bootstrap secret, of as many bits as a generated one."""
    return _is_secret(text) is not None


def document(
    secret: str, created_at: str, before: Mapping[str, object] = _NOTHING
) -> dict[str, object]:
    """Return the record that the store keeps of a secret: its digest, and those that it replaced.

    ``before`` is the record that it takes the place of.
    """
    replaced = [*_replaced(before), *_texts([before.get("digest")])]
    return {
        "schema": SCHEMA,
        "kind": NAME,
        "digest": digest_of(secret),
        "replaced": replaced[-MAX_REPLACED:],
        "created_at": created_at,
    }


def digest_of(secret: str) -> str:
    """Return the digest of a secret, as its record has it."""
    return sha256(secret.encode()).hexdigest()


def was_replaced(secret: str, found: Mapping[str, object]) -> bool:
    """Whether the secret is one that another one took the place of, as the record says."""
    return digest_of(secret) in _replaced(found)


def _replaced(found: Mapping[str, object]) -> list[str]:
    digests = found.get("replaced")
    return _texts(digests) if isinstance(digests, list) else []


def _texts(values: Iterable[object]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


class BootstrapCheck:
    """Compares a secret with the stored digest."""

    def __init__(self) -> None:
        self._digest: bytes | None = None

    def apply(self, name: str, data: bytes | None) -> None:
        """Apply one entry of the store's bucket ``meta``; ``data`` is `None` once it is deleted.

        Entries under another name are ignored. Raises `RecordError` for an unreadable entry; from
        then on no secret is accepted.
        """
        if name != NAME:
            return
        self._digest = None
        if data is not None:
            try:
                digest = bytes.fromhex(read(data).text("digest"))
            except ValueError as error:
                raise RecordError("the bootstrap digest cannot be read") from error
            self._digest = digest if len(digest) == 32 else None

    def principal_of(self, secret: bytes) -> Principal:
        """Return the principal of the bootstrap secret. Raises `Unauthenticated` for any other."""
        if self._digest is None or not compare_digest(sha256(secret).digest(), self._digest):
            raise Unauthenticated
        return _PRINCIPAL
