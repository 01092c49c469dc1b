"""The gateway's own signatures: one master key, what is derived from it, and whom to believe.

Everything secret that the control plane needs comes from 32 random bytes in one file: the key that
seals functions' secrets and the Ed25519 key that signs tokens. The public half is published in the
store, so that processes without the file, which serve invocations only, can check tokens and make
none.

`jwt` and `cryptography` are imported where they are used: they take 9 MiB, and a process that
serves invocations with API keys never needs them.
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
"""The ``iss`` of what the gateway signs."""
SIGNING_PREFIX = "signing."
"""Public halves stand in the store's bucket ``meta`` as ``signing.<kid>``."""

_ALGORITHM = "EdDSA"
_PUBLIC_BYTES = 32


class Claims(NamedTuple):
    """What a good signature says. Times are Unix seconds."""

    members: Mapping[str, Any]
    not_before: float
    expires_at: float


def derived(master: bytes, purpose: str) -> bytes:
    """Return 32 bytes that only who has the master key can know, others for each purpose."""
    if len(master) != MASTER_BYTES:
        raise ValueError(f"a master key has {MASTER_BYTES} bytes, not {len(master)}")
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(SHA256(), 32, None, f"invocation-gateway/1/{purpose}".encode()).derive(master)


def fingerprint(master: bytes) -> str:
    """Return what tells one master key from another, and nothing about either."""
    return derived(master, "fingerprint").hex()


class Signer:
    """Signs tokens."""

    def __init__(self, master: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

        secret = derived(master, "token signing")
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()
        self.kid = _kid(self.public)

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return a JWT of ``claims``, which lack the issuer."""
        import jwt  # noqa: PLC0415

        return jwt.encode(
            {"iss": ISSUER, **claims}, self._key, _ALGORITHM, headers={"kid": self.kid}
        )

    def document(self, created_at: str) -> dict[str, object]:
        """Return what is published, under `SIGNING_PREFIX` and ``kid``."""
        return {
            "schema": SCHEMA,
            "kind": "signing-key",
            "public": b64encode(self.public).decode(),
            "created_at": created_at,
        }


class Signers:
    """Whose signatures count: those published in the store, and this process's own.

    ``changes`` grows whenever a key comes or goes: what was believed before must be asked again.
    """

    def __init__(self, own: Signer | None = None) -> None:
        self._keys: dict[str, bytes] = {}
        self._own = own
        self.changes = 0
        if own is not None:
            self._keys[own.kid] = own.public

    def apply(self, name: str, data: bytes | None) -> None:
        """Take an entry of the store's bucket ``meta``; `None` when it is gone.

        Others than signing keys are ignored. Raises `RecordError` for one that cannot be read,
        which does not count then.
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
            raise RecordError("a signing key stands under another's name")
        self._keys[kid] = public
        self.changes += 1

    def verify(self, token: str, kid: object, audiences: Sequence[str]) -> Claims:
        """Return the claims of a token that names `ISSUER`. Raises `Unauthenticated`.

        Whether the time is right is the caller's to check, at each use.
        """
        public = self._keys.get(kid) if isinstance(kid, str) else None
        if public is None:
            raise Unauthenticated
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

        key = ed25519.Ed25519PublicKey.from_public_bytes(public)
        return verified(token, key, [_ALGORITHM], ISSUER, audiences)

    def _forget(self, kid: str) -> None:
        if self._own is not None and kid == self._own.kid:
            return
        if self._keys.pop(kid, None) is not None:
            self.changes += 1


def unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return header and claims of something that looks like a JWT, believing neither.

    Raises `Unauthenticated`.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated
    import jwt  # noqa: PLC0415

    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
    # What it raises for a token that is none, nested JSON included.
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated from error
    return parts["header"], parts["payload"]


def verified(
    token: str,
    key: Any,  # what `jwt` takes for one of ``algorithms``
    algorithms: Sequence[str],
    issuer: str,
    audiences: Sequence[str],
) -> Claims:
    """Return the claims of a token with a good signature, the right issuer and audience.

    Raises `Unauthenticated`. The clock is not looked at: see `Claims`.
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
    """Return a NumericDate (RFC 7519 §2). Neither infinity nor a text is one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise Unauthenticated
    return value


def _kid(public: bytes) -> str:
    return f"gw-{sha256(public).hexdigest()[:24]}"
