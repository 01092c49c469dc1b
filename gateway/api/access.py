"""Access control of the API: scopes first, then the function that a call names.

Source: `docs/wire.md` §9.2.

A function that an account neither owns nor can use does not exist for it: 404. A function that the
account can use but the credential is not valid for gives 403.
"""

from typing import Any, NamedTuple

from gateway.api.route import Api, Call
from gateway.auth.scopes import ACCOUNT_SCOPES, ADMIN
from gateway.domain.model import EVERYTHING, FunctionVersion, ResourceScope
from gateway.domain.principal import Principal, is_public
from gateway.domain.readmodel import FunctionEntry
from gateway.errors import BadRequest, Forbidden, FunctionNotFound, NotFound

DETAILS = "list_functions_details"
LIST = ("list_functions", DETAILS)
ANONYMOUS = Principal("", "", frozenset(), ResourceScope())
"""The caller of a route without scopes: the handler checks the credential itself, if at all."""
AnyCall = Call[Any, Any]


class VisibleVersion(NamedTuple):
    """A version that the caller sees, and its function."""

    entry: FunctionEntry
    version: FunctionVersion


def require_scope(principal: Principal, scopes: tuple[str, ...]) -> None:
    """Raise `Forbidden` unless the credential has one of ``scopes``."""
    if not any(scope in principal.scopes for scope in scopes):
        raise Forbidden(f"The credential lacks the scope {' or '.join(scopes)}")


def require_admin(principal: Principal, scopes: tuple[str, ...]) -> None:
    """Raise `Forbidden` unless the credential is a JWT of the issuer with one of ``scopes``.

    An API key does not suffice, whatever its record says: only the issuer makes super
    administrators.
    """
    if principal.kind != "jwt":
        raise Forbidden("Only a JWT of the configured issuer is valid for other accounts")
    require_scope(principal, scopes)


def act_for(api: Api, principal: Principal, account: str) -> Principal:
    """Return a super administrator as a caller of ``account`` who reaches all of its functions.

    Only the scopes for all accounts are kept. Raises `NotFound` if the account does not exist.
    """
    if not api.catalog.knows_account(account):
        raise NotFound("There is no such account")
    scopes = frozenset(scope for scope in ACCOUNT_SCOPES if f"{ADMIN}{scope}" in principal.scopes)
    return principal._replace(account=account, scopes=scopes, reach=EVERYTHING)


def not_found(function_id: str, version_id: str = "") -> FunctionNotFound:
    """Return the error for a function that is unknown or invisible: it is the same for both."""
    which = f", version '{version_id}'" if version_id else ""
    # The Terraform provider looks for "Not found" in the text (`docs/compatibility.md`).
    return FunctionNotFound(f"Function id '{function_id}'{which}: Not found in this account")


def forbid(function_id: str) -> Forbidden:
    """Return the error for a visible function that the credential is not valid for."""
    return Forbidden(f"Function id '{function_id}': the credential is not valid for it")


def require_reach(principal: Principal, visible: VisibleVersion, *, is_named: bool = True) -> None:
    """Raise `Forbidden` unless the credential is valid for a version."""
    if not principal.reaches(visible.entry, visible.version, is_named=is_named):
        raise forbid(visible.version.function_id)


def own_versions(entry: FunctionEntry | None, account: str) -> list[FunctionVersion]:
    """Return the versions of a function that ``account`` owns; none if ``entry`` is `None`."""
    if entry is None:
        return []
    return [version for version in entry.versions.values() if version.account == account]


async def find_visible(api: Api, call: AnyCall) -> VisibleVersion:
    """Return the version that a call names, if the caller sees it: own, public or shared.

    Raises `FunctionNotFound`, `Forbidden`. A version of the caller's account that the model of this
    process does not show yet is read from the store.
    """
    entry = api.catalog.function(call.function_id)
    version = entry.versions.get(call.version_id) if entry is not None else None
    if entry is None or version is None:
        found = await call.store(api).version(call.function_id, call.version_id)
        if found is None:
            raise not_found(call.function_id, call.version_id)
        entry = entry or FunctionEntry()
        version = found[0]
    if not call.principal.sees(entry, version):
        raise not_found(call.function_id, call.version_id)
    visible = VisibleVersion(entry, version)
    require_reach(call.principal, visible)
    return visible


def find_visible_versions(api: Api, call: AnyCall) -> list[FunctionVersion]:
    """Return the versions of a function that the caller sees and may use, oldest first.

    Raises `FunctionNotFound` if the caller sees none, `Forbidden` if the credential is valid for
    none.
    """
    entry = api.catalog.function(call.function_id)
    principal = call.principal
    visible = [v for v in entry.versions.values() if principal.sees(entry, v)] if entry else []
    if entry is None or not visible:
        raise not_found(call.function_id)
    usable = [v for v in visible if principal.reaches(entry, v, is_named=True)]
    if not usable:
        raise forbid(call.function_id)
    return sorted(usable, key=lambda v: (v.created_at, v.version_id))


def refuse_public(entry: FunctionEntry | None, version_id: str = "") -> None:
    """Raise `BadRequest` if the function, or the named version, is public.

    Source: `docs/wire.md` §14.3.
    """
    if entry is None:
        return
    named = entry.versions.get(version_id)
    versions = [named] if named is not None else list(entry.versions.values())
    if any(is_public(entry, version) for version in versions):
        raise BadRequest("The function is public: remove its authorizations first")


async def find_owned(api: Api, call: AnyCall) -> FunctionVersion:
    """Return the caller's own version that a call names, as it is in the store now.

    For calls that change it. Raises `BadRequest` for a public function, `FunctionNotFound`,
    `Forbidden`.
    """
    entry = api.catalog.function(call.function_id)
    if entry is not None and call.version_id in entry.versions:
        refuse_public(entry, call.version_id)
    return await read_owned(api, call, entry)


async def read_owned(
    api: Api, call: AnyCall, entry: FunctionEntry | None = None
) -> FunctionVersion:
    """Return the caller's own version from the store. Raises `FunctionNotFound`, `Forbidden`."""
    found = await call.store(api).version(call.function_id, call.version_id)
    if found is None:
        raise not_found(call.function_id, call.version_id)
    require_reach(call.principal, VisibleVersion(entry or FunctionEntry(), found[0]))
    return found[0]


def find_owned_function(api: Api, call: AnyCall) -> FunctionEntry:
    """Return the caller's own function; the credential must be valid for all of it.

    Raises `FunctionNotFound`, `Forbidden`.
    """
    entry = api.catalog.function(call.function_id)
    own = own_versions(entry, call.account)
    if entry is None or not own:
        raise not_found(call.function_id)
    require_reach(call.principal, VisibleVersion(entry, own[0]), is_named=False)
    return entry
