"""Signs the gateway's own tokens and verifies them: keys derived from one master key.

Every secret of the control plane is derived from 32 random bytes in one file: the key that seals
functions' secrets and the Ed25519 key that signs tokens. The public key is published in the store,
so that processes without the file, which only serve invocations, can verify tokens but not make
them.

`jwt` and `cryptography` are imported inside the functions that need them: they take 9 MiB, and a
process that serves invocations with API keys needs neither.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import isfinite
from typing import Any, NamedTuple

from gateway.domain.documents import SCHEMA, RecordError, read
from gateway.errors import Unauthenticated

MASTER_BYTES = 32
MAX_TOKEN_BYTES = 8192
ISSUER = "urn:nvcf:gateway"
"""The claim ``iss`` of the gateway's own tokens."""
SIGNING_PREFIX = "signing."
"""Public keys are stored in the bucket ``meta`` as ``signing.<kid>``."""

_ALGORITHM = "EdDSA"
_PUBLIC_BYTES = 32


class Claims(NamedTuple):
    """The claims of a token with a good signature. Times are Unix seconds, not checked yet."""

    members: Mapping[str, Any]
    not_before: float
    expires_at: float


def derive_key(master: bytes, purpose: str) -> bytes:
    """Return the key of 32 bytes for ``purpose``, derived from the master key (HKDF-SHA-256)."""
    if len(master) != MASTER_BYTES:
        raise ValueError(f"a master key has {MASTER_BYTES} bytes, not {len(master)}")
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(SHA256(), 32, None, f"invocation-gateway/1/{purpose}".encode()).derive(master)


def fingerprint(master: bytes) -> str:
    """Return an id of a master key that reveals nothing about it."""
    return derive_key(master, "fingerprint").hex()


class TokenSigner:
    """Signs tokens with the Ed25519 key derived from a master key; ``kid`` is the key's id."""

    def __init__(self, master: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

        secret = derive_key(master, "token signing")
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()
        self.kid = _kid(self.public)

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return a JWT of ``claims``, to which ``iss`` is added."""
        import jwt  # noqa: PLC0415

        return jwt.encode(
            {"iss": ISSUER, **claims}, self._key, _ALGORITHM, headers={"kid": self.kid}
        )

    def document(self, created_at: str) -> dict[str, object]:
        """Return the record of the public key, stored under `SIGNING_PREFIX` plus ``kid``."""
        return {
            "schema": SCHEMA,
            "kind": "signing-key",
            "public": b64encode(self.public).decode(),
            "created_at": created_at,
        }


class VerificationKeys:
    """The public keys that verify the gateway's tokens: those in the store, and this process's own.

    ``changes`` grows whenever a key is added or removed: cached results are then invalid.
    """

    def __init__(self, own: TokenSigner | None = None) -> None:
        self._keys: dict[str, bytes] = {}
        self._own = own
        self.changes = 0
        if own is not None:
            self._keys[own.kid] = own.public

    def apply(self, name: str, data: bytes | None) -> None:
        """Apply one entry of the store's bucket ``meta``; ``data`` is `None` once it is deleted.

        Entries that are not signing keys are ignored. Raises `RecordError` for an unreadable one,
        which then verifies nothing.
        """
        if not name.startswith(SIGNING_PREFIX):
            return
        kid = name.removeprefix(SIGNING_PREFIX)
        self._forget(kid)
        if data is None:
            return
        try:
            public = b64decode(read(data).text("public"), validate=True)
        except ValueError as error:
            raise RecordError("a signing key cannot be read") from error
        if len(public) != _PUBLIC_BYTES:
            raise RecordError("a signing key cannot be read")
        if _kid(public) != kid:
            raise RecordError("a signing key is stored under another key's name")
        self._keys[kid] = public
        self.changes += 1

    def verify(self, token: str, kid: object, audiences: Sequence[str]) -> Claims:
        """Return the claims of a token that names `ISSUER`. Raises `Unauthenticated`.

        The caller must check ``not_before`` and ``expires_at``, at each use.
        """
        public = self._keys.get(kid) if isinstance(kid, str) else None
        if public is None:
            raise Unauthenticated
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

        key = ed25519.Ed25519PublicKey.from_public_bytes(public)
        return verify_token(token, key, [_ALGORITHM], ISSUER, audiences)

    def _forget(self, kid: str) -> None:
        if self._own is not None and kid == self._own.kid:
            return
        if self._keys.pop(kid, None) is not None:
            self.changes += 1


def read_unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the header and claims of a JWT without verifying its signature.

    Raises `Unauthenticated` if ``token`` is not a JWT or longer than `MAX_TOKEN_BYTES`.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated
    import jwt  # noqa: PLC0415

    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
    # PyJWT raises each of these for malformed tokens; RecursionError comes from nested JSON.
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated from error
    return parts["header"], parts["payload"]


def verify_token(
    token: str,
    key: Any,  # whatever PyJWT accepts as a key for ``algorithms``
    algorithms: Sequence[str],
    issuer: str,
    audiences: Sequence[str],
) -> Claims:
    """Verify signature, issuer and audience, and return the claims. Raises `Unauthenticated`.

    The times are not checked, because this module has no clock: see `Claims`.
    """
    import jwt  # noqa: PLC0415

    try:
        members = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            issuer=issuer,
            audience=audiences,
            options={
                "require": ["exp", "aud", "iss", "sub"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated from error
    return Claims(members, _seconds(members.get("nbf", 0)), _seconds(members["exp"]))


def _seconds(value: object) -> float:
    """Return a NumericDate (RFC 7519 §2). Raises `Unauthenticated` for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise Unauthenticated
    return value


def _kid(public: bytes) -> str:
    return f"gw-{sha256(public).hexdigest()[:24]}"
