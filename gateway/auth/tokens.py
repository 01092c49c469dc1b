"""Tokens that the gateway issues: short-lived, signed, each a `Principal` in writing.

    admin    all of one account, for `POST /v1/admin/keys`; the default account's: all accounts too
    token    invoke some functions, for `POST /v2/nvcf/tokens/functions`
    worker   connect as one instance of one version

The kind is the token's audience, so that none passes for another. A token made with an API key
carries the key's digest and is good for as long as the key is: revoking the key ends both.
"""

from typing import Any, NamedTuple

from gateway.auth.scopes import ADMIN_SETUP, ADMIN_TOKEN_SCOPES, WORKER
from gateway.auth.signing import Claims, Signer, Signers
from gateway.domain.model import EVERYTHING, ResourceScope, resource_scope_of, resources_of
from gateway.domain.principal import INVOKE, Principal
from gateway.errors import Unauthenticated

ADMIN = "admin"
INVOCATION = "token"
WORKER_KIND = "worker"
_KINDS = (ADMIN, INVOCATION, WORKER_KIND)
_URN = "urn:nvcf:gateway:"
_AUDIENCES = tuple(f"{_URN}{kind}" for kind in _KINDS)


class WorkerIdentity(NamedTuple):
    """Which instance a worker is."""

    account: str
    function_id: str
    version_id: str
    instance_id: str


def mint(
    signer: Signer, principal: Principal, *, now: float, lifetime_s: float, token_id: str
) -> str:
    """Return a token that says what ``principal`` may, from ``now`` for ``lifetime_s`` seconds."""
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


def read_token(signers: Signers, token: str, kid: object) -> tuple[Principal, Claims]:
    """Return who holds a token whose issuer is the gateway. Raises `Unauthenticated`.

    The caller checks the times, and that the key it rests on is still good.
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
    """Return who has an admin token of ``account``; may they make and change others too?"""
    more = frozenset({ADMIN_SETUP}) if sets_up_others else frozenset()
    return Principal(account, ADMIN, ADMIN_TOKEN_SCOPES | more, EVERYTHING, ADMIN)


def invoker_of(caller: Principal, client_id: str, reach: ResourceScope) -> Principal:
    """Return who has a token that ``caller`` makes for ``client_id``, for the functions given."""
    return Principal(
        caller.account, client_id, frozenset({INVOKE}), reach, INVOCATION, caller.key_digest
    )


def worker_principal(worker: WorkerIdentity) -> Principal:
    """Return who has the token of an instance."""
    reach = ResourceScope(versions=frozenset({f"{worker.function_id}/{worker.version_id}"}))
    return Principal(worker.account, worker.instance_id, frozenset({WORKER}), reach, WORKER_KIND)


def worker_of(principal: Principal) -> WorkerIdentity:
    """Return which instance a worker is. Raises `Unauthenticated` for anybody else."""
    if principal.kind != WORKER_KIND or len(principal.reach.versions) != 1:
        raise Unauthenticated
    (version,) = principal.reach.versions
    function_id, _, version_id = version.partition("/")
    return WorkerIdentity(principal.account, function_id, version_id, principal.subject)


def _text(members: Any, name: str) -> str:
    value = members[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value
