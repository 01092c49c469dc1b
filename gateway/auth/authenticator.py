"""Who sends a request, whatever the credential: the one question that all roles ask.

Synchronous and cheap: an API key costs a hash and a look-up, a signed token a hash and two, since
a signature is checked once and remembered. What can end a credential early is looked up at each
use, in memory: its expiry, the key it rests on, its account.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from gateway.auth.bootstrap import PREFIX as BOOTSTRAP_PREFIX
from gateway.auth.bootstrap import BootstrapCheck
from gateway.auth.keys import PREFIX, bearer_of, principal_of
from gateway.auth.signing import ISSUER, Signers, unverified
from gateway.auth.tokens import WORKER_KIND, read_token
from gateway.domain.model import EVERYTHING
from gateway.domain.principal import Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import NotFound, Unauthenticated

if TYPE_CHECKING:
    from gateway.auth.jwt import IssuerKeys

_MAX_REMEMBERED = 4096
"""Signed tokens whose signature is known to be good; beyond it all are checked again."""
_BASIC = b"basic "


class _Believed(NamedTuple):
    """A signed token. ``principal`` of an issuer's JWT lacks the account: its client's counts."""

    principal: Principal
    not_before: float
    expires_at: float


class Authenticator:
    """API keys, JWTs of the configured issuer, the gateway's own tokens, the bootstrap secret."""

    def __init__(
        self,
        model: ReadModel,
        signers: Signers,
        bootstrap: BootstrapCheck,
        issuer: "IssuerKeys | None" = None,
    ) -> None:
        self._model = model
        self._signers = signers
        self._bootstrap = bootstrap
        self._issuer = issuer
        self._believed: dict[bytes, _Believed] = {}
        self._changes = -1

    def authenticate(self, authorization: bytes | None, now: float) -> Principal:
        """Return who sends an ``Authorization`` value; ``now`` is Unix time in seconds.

        Raises `Unauthenticated`, the same for everything that is not good, `NotFound` for a good
        JWT whose client has no account (any more), and `gateway.auth.jwt.IssuerUnavailable`.
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
        return self._signed(credential, now)

    def _signed(self, token: bytes, now: float) -> Principal:
        changes = self._signers.changes + (self._issuer.changes if self._issuer else 0)
        if changes != self._changes:
            self._changes = changes
            self._believed.clear()
        digest = sha256(token).digest()
        believed = self._believed.get(digest)
        if believed is None:
            believed = self._checked(token.decode())
            if len(self._believed) >= _MAX_REMEMBERED:
                self._believed.clear()
            if believed.expires_at > now:
                self._believed[digest] = believed
        principal, not_before, expires_at = believed
        if not not_before <= now < expires_at:
            self._believed.pop(digest, None)
            raise Unauthenticated
        if principal.kind == "jwt":
            return self._with_account(principal)
        if principal.key_digest:
            # A key ends with its account, which needs no record of its own.
            self._check_key(principal.key_digest, now)
        elif principal.kind != WORKER_KIND and self._model.account(principal.account) is None:
            # A worker ends with its function; no account with functions is deleted.
            raise Unauthenticated
        return principal

    def _checked(self, token: str) -> _Believed:
        header, members = unverified(token)
        issuer, kid = members.get("iss"), header.get("kid")
        if issuer == ISSUER:
            principal, claims = read_token(self._signers, token, kid)
        elif self._issuer is not None and issuer == self._issuer.issuer.name:
            claims, scopes = self._issuer.read(token, kid)
            principal = Principal("", claims.members["sub"], scopes, EVERYTHING, "jwt")
        else:
            raise Unauthenticated
        return _Believed(principal, claims.not_before, claims.expires_at)

    def _with_account(self, principal: Principal) -> Principal:
        client = self._model.client(principal.subject)
        if client is None or self._model.account(client.account) is None:
            raise NotFound("The client of the token has no account")
        return principal._replace(account=client.account)

    def _check_key(self, digest: bytes, now: float) -> None:
        """Raise `Unauthenticated` when the key is revoked or expired that a token rests on."""
        key = self._model.key(digest)
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            raise Unauthenticated


def _password_of(authorization: bytes) -> bytes | None:
    """Return the password of an ``Authorization: Basic`` value (RFC 7617), `None` for others.

    Programs that can be given a URL but no header send a credential so, as in
    ``https://any:nvapi-…@host``: NVCF's CLI is one, for the calls that it sends without a bearer.
    """
    if authorization[: len(_BASIC)].lower() != _BASIC:
        return None
    try:
        pair = b64decode(authorization[len(_BASIC) :].strip(), validate=True)
    except (Base64Error, ValueError):
        return None
    password = pair.partition(b":")[2]
    return password if password.isascii() and password else None
