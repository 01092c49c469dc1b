"""Turns an ``Authorization`` value of any kind into a `Principal`; every role uses it.

Synchronous and cheap: an API key costs one hash and one look-up, a signed token one hash and two
look-ups, because its signature is verified once and the result cached. Everything that can
invalidate a credential early is checked in memory at each use: its expiry, the API key that it was
made with, its account.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from gateway.auth.bootstrap import PREFIX as BOOTSTRAP_PREFIX
from gateway.auth.bootstrap import BootstrapCheck
from gateway.auth.keys import PREFIX, bearer_of, principal_of
from gateway.auth.signing import ISSUER, VerificationKeys, read_unverified
from gateway.auth.tokens import WORKERS, read_token
from gateway.domain.model import EVERYTHING
from gateway.domain.principal import Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import NotFound, Unauthenticated

if TYPE_CHECKING:
    from gateway.auth.jwt import IssuerKeys

_MAX_REMEMBERED = 4096
"""Verified tokens in the cache; a full cache is emptied, and signatures are verified again."""
_BASIC = b"basic "


class _VerifiedToken(NamedTuple):
    """A token with a good signature; times are Unix seconds.

    The ``principal`` of an issuer's JWT has no account yet: it gets its client's at each use.
    """

    principal: Principal
    not_before: float
    expires_at: float


class Authenticator:
    """Accepts API keys, JWTs of the configured issuer, own tokens and the bootstrap secret."""

    def __init__(
        self,
        model: ReadModel,
        signers: VerificationKeys,
        bootstrap: BootstrapCheck,
        issuer: "IssuerKeys | None" = None,
    ) -> None:
        self._model = model
        self._signers = signers
        self._bootstrap = bootstrap
        self._issuer = issuer
        self._verified: dict[bytes, _VerifiedToken] = {}
        self._changes = -1

    @property
    def remembered(self) -> int:
        """How many verified tokens are in the cache."""
        return len(self._verified)

    def authenticate(self, authorization: bytes | None, now: float) -> Principal:
        """Return the principal of an ``Authorization`` value; ``now`` is Unix time in seconds.

        Raises `Unauthenticated`, with the same text for a missing, malformed, unknown, expired and
        revoked credential, so that a caller cannot find out which ones exist; `NotFound` for a
        valid JWT whose client has no account; and `gateway.auth.jwt.IssuerUnavailable`.
        """
        if authorization is None:
            raise Unauthenticated
        credential = bearer_of(authorization) or _password_of(authorization)
        if credential is None:
            raise Unauthenticated
        if credential.startswith(PREFIX):
            return principal_of(self._model, credential, now)
        if credential.startswith(BOOTSTRAP_PREFIX):
            return self._bootstrap.principal_of(credential)
        return self._authenticate_token(credential, now)

    def _authenticate_token(self, token: bytes, now: float) -> Principal:
        changes = self._signers.changes + (self._issuer.changes if self._issuer else 0)
        if changes != self._changes:
            self._changes = changes
            self._verified.clear()
        digest = sha256(token).digest()
        verified = self._verified.get(digest)
        if verified is None:
            verified = self._verify(token.decode())
            if len(self._verified) >= _MAX_REMEMBERED:
                self._verified.clear()
            if verified.expires_at > now:
                self._verified[digest] = verified
        principal, not_before, expires_at = verified
        if not not_before <= now < expires_at:
            self._verified.pop(digest, None)
            raise Unauthenticated
        if principal.kind == "jwt":
            return self._add_account(principal)
        if principal.key_digest:
            # Deleting an account deletes its keys, and an account with keys may have no record.
            key_id = self._key_id_of(principal.key_digest, now)
            if key_id != principal.key_id:
                principal = principal._replace(key_id=key_id)
                self._verified[digest] = verified._replace(principal=principal)
        elif principal.kind not in WORKERS and self._model.account(principal.account) is None:
            # A worker's token needs no such check: an account that has functions is never deleted.
            raise Unauthenticated
        return principal

    def _verify(self, token: str) -> _VerifiedToken:
        header, members = read_unverified(token)
        issuer, kid = members.get("iss"), header.get("kid")
        if issuer == ISSUER:
            principal, claims = read_token(self._signers, token, kid)
        elif self._issuer is not None and issuer == self._issuer.issuer.name:
            claims, scopes = self._issuer.read(token, kid)
            principal = Principal("", claims.members["sub"], scopes, EVERYTHING, "jwt")
        else:
            raise Unauthenticated
        return _VerifiedToken(principal, claims.not_before, claims.expires_at)

    def _add_account(self, principal: Principal) -> Principal:
        client = self._model.client(principal.subject)
        if client is None or self._model.account(client.account) is None:
            raise NotFound("The client of the token has no account")
        return principal._replace(account=client.account)

    def _key_id_of(self, digest: bytes, now: float) -> str:
        """Return the id of the API key that a token was made with.

        Raises `Unauthenticated` if that key is gone or expired.
        """
        key = self._model.key(digest)
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            raise Unauthenticated
        return key.key_id


def _password_of(authorization: bytes) -> bytes | None:
    """Return the password of an ``Authorization: Basic`` value (RFC 7617), `None` for others.

    Programs that accept a URL but no headers send a credential this way, as in
    ``https://any:nvapi-…@host``. NVCF's CLI does so for the calls that it makes without a bearer.
    """
    if authorization[: len(_BASIC)].lower() != _BASIC:
        return None
    try:
        pair = b64decode(authorization[len(_BASIC) :].strip(), validate=True)
    except (Base64Error, ValueError):
        return None
    password = pair.partition(b":")[2]
    return password if password.isascii() and password else None
