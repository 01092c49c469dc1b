"""The bootstrap secret: the first credential, by which all others are made.

It is made at the first start of all, printed once, and stored as a SHA-256 only: over 256 random
bits that needs neither salt nor stretching.
"""

from base64 import urlsafe_b64encode
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
"""Where the digest stands in the store's bucket ``meta``."""

_PRINCIPAL = Principal("", NAME, frozenset({BOOTSTRAP}), ResourceScope(), NAME)


def new_secret(random32: bytes) -> str:
    """Return the secret made of 32 random bytes. It is shown once and stored nowhere."""
    if len(random32) != RANDOM_BYTES:
        raise ValueError(f"a bootstrap secret needs {RANDOM_BYTES} random bytes")
    return (PREFIX + urlsafe_b64encode(random32).rstrip(b"=")).decode()


def document(secret: str, created_at: str) -> dict[str, object]:
    """Return what is stored of a secret."""
    digest = sha256(secret.encode()).hexdigest()
    return {"schema": SCHEMA, "kind": NAME, "digest": digest, "created_at": created_at}


class BootstrapCheck:
    """Knows the digest, and who has the secret."""

    def __init__(self) -> None:
        self._digest: bytes | None = None

    def apply(self, name: str, data: bytes | None) -> None:
        """Take an entry of the store's bucket ``meta``; `None` when it is gone.

        Others are ignored. Raises `RecordError` for one that cannot be read: then no secret is
        good.
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
        """Return who has the secret. Raises `Unauthenticated` when it is another one."""
        if self._digest is None or not compare_digest(sha256(secret).digest(), self._digest):
            raise Unauthenticated
        return _PRINCIPAL
