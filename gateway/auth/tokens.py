"""Tokens that the gateway issues: short-lived, signed, each an encoded `Principal`.

    admin    everything in one account, from `POST /v1/admin/keys`; the default account's token also
             manages other accounts
    token    invoke certain functions, from `POST /v2/nvcf/tokens/functions`
    worker   connect as one instance of one function version
    registration   register as instances of one function version

The kind is part of the token's audience, so that one kind is never accepted as another. A token
made with an API key carries the key's digest and is valid only while the key is.
"""

from typing import Any, NamedTuple

from gateway.auth.scopes import ADMIN_SETUP, ADMIN_TOKEN_SCOPES, WORKER
from gateway.auth.signing import Claims, TokenSigner, VerificationKeys
from gateway.domain.model import EVERYTHING, ResourceScope, resource_scope_of, resources_of
from gateway.domain.principal import INVOCATION_TOKEN, INVOKE, Principal
from gateway.errors import Unauthenticated
from wire.worker_api import REGISTRATION_AUDIENCE

ADMIN = "admin"
WORKER_KIND = "worker"
REGISTRATION = REGISTRATION_AUDIENCE.removeprefix("urn:nvcf:gateway:")
WORKERS = frozenset({WORKER_KIND, REGISTRATION})
"""The kinds of tokens that workers have."""
_KINDS = (ADMIN, INVOCATION_TOKEN, WORKER_KIND, REGISTRATION)
_URN = "urn:nvcf:gateway:"
_AUDIENCES = tuple(f"{_URN}{kind}" for kind in _KINDS)


class VersionToken(NamedTuple):
    """What the token of a worker says; ``subject`` is an instance's id, or the token's own."""

    account: str
    function_id: str
    version_id: str
    subject: str


class WorkerIdentity(NamedTuple):
    """The instance that a worker agent serves."""

    account: str
    function_id: str
    version_id: str
    instance_id: str


def mint(
    signer: TokenSigner, principal: Principal, *, now: float, lifetime_s: float, token_id: str
) -> str:
    """Return a token of ``principal``, valid for ``lifetime_s`` from ``now`` (Unix seconds)."""
    if principal.kind not in _KINDS:
        raise ValueError(f"the gateway issues no token of kind {principal.kind}")
    claims: dict[str, object] = {
        "aud": f"{_URN}{principal.kind}",
        "sub": principal.subject,
        "nca_id": principal.account,
        "scopes": sorted(principal.scopes),
        "resources": resources_of(principal.reach),
        "jti": token_id,
        "iat": int(now),
        "exp": int(now + lifetime_s),
    }
    if principal.key_digest:
        claims["key"] = principal.key_digest.hex()
    return signer.sign(claims)


def read_token(signers: VerificationKeys, token: str, kid: object) -> tuple[Principal, Claims]:
    """Return the principal and claims of a token of the gateway. Raises `Unauthenticated`.

    The caller must check the times, and that the API key the token was made with is still valid.
    """
    claims = signers.verify(token, kid, _AUDIENCES)
    members = claims.members
    audience = members["aud"]
    if not isinstance(audience, str):
        raise Unauthenticated
    try:
        principal = Principal(
            account=_text(members, "nca_id"),
            subject=_text(members, "sub"),
            scopes=frozenset(members["scopes"]),
            reach=resource_scope_of(members["resources"]),
            kind=audience.removeprefix(_URN),
            key_digest=bytes.fromhex(members.get("key", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unauthenticated from error
    return principal, claims


def admin_of(account: str, *, sets_up_others: bool = False) -> Principal:
    """Return the principal of an admin token of ``account``.

    With ``sets_up_others`` it may also create, change and delete other accounts.
    """
    more = frozenset({ADMIN_SETUP}) if sets_up_others else frozenset()
    return Principal(account, ADMIN, ADMIN_TOKEN_SCOPES | more, EVERYTHING, ADMIN)


def invoker_of(caller: Principal, client_id: str, reach: ResourceScope) -> Principal:
    """Return the principal of an invocation token that ``caller`` makes for ``client_id``."""
    return Principal(
        caller.account, client_id, frozenset({INVOKE}), reach, INVOCATION_TOKEN, caller.key_digest
    )


def worker_principal(worker: WorkerIdentity) -> Principal:
    """Return the principal of a worker token."""
    reach = ResourceScope(versions=frozenset({f"{worker.function_id}/{worker.version_id}"}))
    return Principal(worker.account, worker.instance_id, frozenset({WORKER}), reach, WORKER_KIND)


def registration_principal(token: VersionToken) -> Principal:
    """Return the principal of a registration token; its subject is the token's id."""
    reach = ResourceScope(versions=frozenset({f"{token.function_id}/{token.version_id}"}))
    return Principal(token.account, token.subject, frozenset({WORKER}), reach, REGISTRATION)


def worker_of(principal: Principal) -> WorkerIdentity:
    """Return the instance of a worker's principal. Raises `Unauthenticated` for any other kind."""
    return WorkerIdentity(*_version_token_of(principal, WORKER_KIND))


def registration_of(principal: Principal) -> VersionToken:
    """Return what a registration token says. Raises `Unauthenticated` for any other kind."""
    return _version_token_of(principal, REGISTRATION)


def _version_token_of(principal: Principal, kind: str) -> VersionToken:
    if principal.kind != kind or len(principal.reach.versions) != 1:
        raise Unauthenticated
    (version,) = principal.reach.versions
    function_id, _, version_id = version.partition("/")
    return VersionToken(principal.account, function_id, version_id, principal.subject)


def _text(members: Any, name: str) -> str:
    value = members[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value
