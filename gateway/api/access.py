"""Who may do what: scopes before anything else is looked at, then which function (§1.0).

What an account does not own and nobody shares with it does not exist for it: 404. What exists and
the credential is not good for is 403.
"""

from typing import Any, NamedTuple

from gateway.api.route import Api, Call
from gateway.auth.scopes import ACCOUNT_SCOPES, ADMIN
from gateway.domain.model import EVERYTHING, FunctionVersion, Reach
from gateway.domain.principal import Principal, is_public
from gateway.domain.readmodel import FunctionEntry
from gateway.errors import BadRequest, Forbidden, FunctionNotFound, NotFound

DETAILS = "list_functions_details"
LIST = ("list_functions", DETAILS)
ANYBODY = Principal("", "", frozenset(), Reach())
"""Who calls a route without scopes: its handler looks at the credential itself, if at all."""
AnyCall = Call[Any, Any]


class Seen(NamedTuple):
    """A version that exists for the caller, and the function it belongs to."""

    entry: FunctionEntry
    version: FunctionVersion


def require_scope(principal: Principal, scopes: tuple[str, ...]) -> None:
    """Raise `Forbidden` unless the credential has one of ``scopes``."""
    if not any(scope in principal.scopes for scope in scopes):
        raise Forbidden(f"The credential lacks the scope {' or '.join(scopes)}")


def require_admin(principal: Principal, scopes: tuple[str, ...]) -> None:
    """Raise `Forbidden` unless it is a JWT of the issuer with one of ``scopes``.

    Whatever a key's record says: only the issuer makes super administrators.
    """
    if principal.kind != "jwt":
        raise Forbidden("Only a JWT of the configured issuer is good for other accounts")
    require_scope(principal, scopes)


def acting_for(api: Api, principal: Principal, account: str) -> Principal:
    """Return a super administrator as a caller who has the whole ``account`` in reach.

    Of its scopes remain those for all accounts. Raises `NotFound` for an account that is not there.
    """
    if not api.catalog.knows_account(account):
        raise NotFound("There is no such account")
    scopes = frozenset(scope for scope in ACCOUNT_SCOPES if f"{ADMIN}{scope}" in principal.scopes)
    return principal._replace(account=account, scopes=scopes, reach=EVERYTHING)


def not_found(function_id: str, version_id: str = "") -> FunctionNotFound:
    """Return the same error for what is unknown and for what is somebody else's."""
    which = f", version '{version_id}'" if version_id else ""
    return FunctionNotFound(f"Function id '{function_id}'{which}: not found")


def require_reach(principal: Principal, seen: Seen, *, is_named: bool = True) -> None:
    """Raise `Forbidden` unless the credential is good for a version."""
    if not principal.reaches(seen.entry, seen.version, is_named=is_named):
        raise Forbidden(
            f"Function id '{seen.version.function_id}': the credential is not good for it"
        )


async def visible(api: Api, call: AnyCall) -> Seen:
    """Return the version that a call names, if the caller sees it: own, public or shared.

    Raises `FunctionNotFound`, `Forbidden`. One of the caller's own that this process has not heard
    of yet is looked up in the store.
    """
    entry = api.catalog.function(call.function_id)
    version = entry.versions.get(call.version_id) if entry is not None else None
    if entry is None or version is None:
        found = await call.own(api).version(call.function_id, call.version_id)
        if found is None:
            raise not_found(call.function_id, call.version_id)
        entry = entry or FunctionEntry()
        version = found[0]
    if not call.principal.sees(entry, version):
        raise not_found(call.function_id, call.version_id)
    seen = Seen(entry, version)
    require_reach(call.principal, seen)
    return seen


def visible_versions(api: Api, call: AnyCall) -> tuple[FunctionEntry, list[FunctionVersion]]:
    """Return a function and those of its versions that the caller sees and may use, oldest first.

    Raises `FunctionNotFound` when there is none, `Forbidden` when the credential hides them all.
    """
    entry = api.catalog.function(call.function_id)
    principal = call.principal
    seen = [v for v in entry.versions.values() if principal.sees(entry, v)] if entry else []
    if entry is None or not seen:
        raise not_found(call.function_id)
    usable = [v for v in seen if principal.reaches(entry, v, is_named=True)]
    if not usable:
        raise Forbidden(f"Function id '{call.function_id}': the credential is not good for it")
    return entry, sorted(usable, key=lambda v: (v.created_at, v.version_id))


def refuse_public(entry: FunctionEntry | None, version_id: str = "") -> None:
    """Raise `BadRequest` for what is not to be done to a public function (§5.5)."""
    if entry is None:
        return
    named = entry.versions.get(version_id)
    versions = [named] if named is not None else list(entry.versions.values())
    if any(is_public(entry, version) for version in versions):
        raise BadRequest("The function is public: withdraw its authorizations first")


async def owned(api: Api, call: AnyCall) -> tuple[FunctionVersion, int]:
    """Return the caller's own version that a call names, as it is in the store now.

    For calls that change it. Raises `BadRequest` for a public function, `FunctionNotFound`,
    `Forbidden`.
    """
    entry = api.catalog.function(call.function_id)
    if entry is not None and call.version_id in entry.versions:
        refuse_public(entry, call.version_id)
    found = await call.own(api).version(call.function_id, call.version_id)
    if found is None:
        raise not_found(call.function_id, call.version_id)
    require_reach(call.principal, Seen(entry or FunctionEntry(), found[0]))
    return found


def owned_function(api: Api, call: AnyCall) -> FunctionEntry:
    """Return the caller's own function; the credential must be good for all of it.

    Raises `FunctionNotFound`, `Forbidden`.
    """
    entry = api.catalog.function(call.function_id)
    own = [v for v in entry.versions.values() if v.account == call.account] if entry else []
    if entry is None or not own:
        raise not_found(call.function_id)
    require_reach(call.principal, Seen(entry, own[0]), is_named=False)
    return entry
