"""Who else may use a function or a version: other accounts, or everybody (§2, §5.5).

There are two sets, one for all versions of a function and one for a version; a caller who is in
either is let in. A version is told with both.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from gateway.api.access import AnyCall, Seen, not_found, owned_function, require_reach
from gateway.api.compare_and_set import change_record, change_version
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.authorizations import (
    Authorize,
    AuthorizeOne,
    Party,
    PartyView,
    SharedAnswer,
    SharedListAnswer,
    SharedView,
)
from gateway.domain.model import Function, FunctionVersion
from gateway.domain.readmodel import FunctionEntry
from gateway.errors import BadRequest, Conflict, NotFound
from wire.ids import FunctionId

EVERYBODY = "*"

Shared = Function | FunctionVersion
AnyShared = TypeVar("AnyShared", Function, FunctionVersion)


async def authorize(api: Api, call: Call[Authorize, None]) -> SharedAnswer:
    """Authorize these accounts for every version, and no others."""
    return await _change_function(api, call, lambda one: _authorized(api, call, one))


async def authorize_version(api: Api, call: Call[Authorize, None]) -> SharedAnswer:
    """Authorize these accounts for a version, and no others."""
    return await _change_version(api, call, lambda one: _authorized(api, call, one))


async def parties(api: Api, call: Call[None, None]) -> SharedListAnswer:
    """List who is authorized, version by version."""
    entry = owned_function(api, call)
    versions = sorted(entry.versions.values(), key=lambda one: (one.created_at, one.version_id))
    return SharedListAnswer(functions=[_view(one, entry.function) for one in versions])


async def version_parties(api: Api, call: Call[None, None]) -> SharedAnswer:
    """List who is authorized for a version."""
    version = await _own_version(api, call)
    entry = api.catalog.function(call.function_id)
    return SharedAnswer(function=_view(version, entry.function if entry else None))


async def add(api: Api, call: Call[AuthorizeOne, None]) -> SharedAnswer:
    """Authorize one more account for every version."""
    return await _change_function(
        api, call, lambda one: replace(one, shared_with=_added(one, _one(api, call)))
    )


async def add_version(api: Api, call: Call[AuthorizeOne, None]) -> SharedAnswer:
    """Authorize one more account for a version."""
    return await _change_version(
        api, call, lambda one: replace(one, shared_with=_added(one, _one(api, call)))
    )


async def remove(api: Api, call: Call[AuthorizeOne, None]) -> SharedAnswer:
    """Withdraw one account's authorization for every version."""
    account = call.body.authorized_party.nca_id
    return await _change_function(
        api, call, lambda one: replace(one, shared_with=_removed(one, account))
    )


async def remove_version(api: Api, call: Call[AuthorizeOne, None]) -> SharedAnswer:
    """Withdraw one account's authorization for a version."""
    account = call.body.authorized_party.nca_id
    return await _change_version(
        api, call, lambda one: replace(one, shared_with=_removed(one, account))
    )


async def withdraw(api: Api, call: Call[None, None]) -> SharedAnswer:
    """Withdraw every authorization of the function."""
    return await _change_function(
        api, call, lambda one: replace(one, shared_with=frozenset(), is_public=False)
    )


async def withdraw_version(api: Api, call: Call[None, None]) -> SharedAnswer:
    """Withdraw every authorization of the version; the function's own stay."""
    return await _change_version(
        api, call, lambda one: replace(one, shared_with=frozenset(), is_public=False)
    )


async def _change_function(
    api: Api, call: AnyCall, change: Callable[[Function], Function]
) -> SharedAnswer:
    """Change the function's set, once it is known whose the function is."""
    store = call.own(api)

    async def read() -> tuple[Function, int]:
        owned_function(api, call)
        found = await store.function(call.function_id)
        # Else it was deleted with the last version while another one was being registered.
        return found or (Function(FunctionId(call.function_id), call.account), 0)

    changed = await change_record(store.put, read, change)
    assert changed is not None
    return SharedAnswer(function=_view(changed, None))


async def _change_version(
    api: Api, call: AnyCall, change: Callable[[FunctionVersion], FunctionVersion]
) -> SharedAnswer:
    """Change the version's set, once it is known whose the version is."""
    await _own_version(api, call)
    changed = await change_version(call.own(api), call.function_id, call.version_id, change)
    if changed is None:
        raise not_found(call.function_id, call.version_id)
    entry = api.catalog.function(call.function_id)
    return SharedAnswer(function=_view(changed, entry.function if entry else None))


async def _own_version(api: Api, call: AnyCall) -> FunctionVersion:
    found = await call.own(api).version(call.function_id, call.version_id)
    if found is None:
        raise not_found(call.function_id, call.version_id)
    require_reach(call.principal, Seen(FunctionEntry(), found[0]))
    return found[0]


def _authorized(api: Api, call: Call[Authorize, None], shared: AnyShared) -> AnyShared:
    accounts, is_public = _parties(api, call, call.body.authorized_parties)
    return replace(shared, shared_with=accounts, is_public=is_public)


def _parties(api: Api, call: AnyCall, named: list[Party]) -> tuple[frozenset[str], bool]:
    """Return the accounts, and whether everybody is meant."""
    accounts = [_checked(api, call, party) for party in named]
    if EVERYBODY in accounts:
        if len(accounts) > 1:
            raise BadRequest("'*' stands alone: it is everybody")
        return frozenset(), True
    return frozenset(accounts), False


def _one(api: Api, call: Call[AuthorizeOne, None]) -> str:
    account = _checked(api, call, call.body.authorized_party)
    if account == EVERYBODY:
        raise BadRequest("'*' cannot be added: POST it as the only party")
    return account


def _checked(api: Api, call: AnyCall, party: Party) -> str:
    if party.client_id:
        raise BadRequest("A single client cannot be authorized, only its whole account")
    if party.nca_id == call.account:
        raise BadRequest("An account cannot authorize itself")
    if party.nca_id != EVERYBODY and not api.catalog.knows_account(party.nca_id):
        raise BadRequest("A party is no account")
    return party.nca_id


def _added(shared: Shared, account: str) -> frozenset[str]:
    if not shared.shared_with and not shared.is_public:
        raise NotFound("Nobody is authorized yet: POST the first parties")
    if account in shared.shared_with:
        raise Conflict("The account is authorized already")
    return shared.shared_with | {account}


def _removed(shared: Shared, account: str) -> frozenset[str]:
    if account not in shared.shared_with:
        raise NotFound("The account is not authorized")
    return shared.shared_with - {account}


def _view(shared: Shared, common: Function | None) -> SharedView:
    accounts = shared.shared_with | (common.shared_with if common else frozenset())
    is_public = shared.is_public or (common is not None and common.is_public)
    named = [EVERYBODY] if is_public else []
    return SharedView(
        id=shared.function_id,
        nca_id=shared.account,
        version_id=shared.version_id if isinstance(shared, FunctionVersion) else None,
        authorized_parties=[PartyView(nca_id=one) for one in [*named, *sorted(accounts)]] or None,
    )


_FUNCTION = "/v2/nvcf/authorizations/functions/{functionId}"
_VERSION = f"{_FUNCTION}/versions/{{functionVersionId}}"
_TAG = "authorizations"
_SCOPES = ("authorize_clients",)


def _route(
    method: str,
    path: str,
    handle: Callable[..., object],
    body: type[Authorize | AuthorizeOne] | None,
) -> AnyRoute:
    summary = (handle.__doc__ or "").partition(".")[0]
    answer = SharedListAnswer if handle is parties else SharedAnswer
    return Route(method, path, handle, summary, _TAG, _SCOPES, answer, body)  # type: ignore[arg-type]  # any of the above


ROUTES: tuple[AnyRoute, ...] = (
    _route("POST", _FUNCTION, authorize, Authorize),
    _route("GET", _FUNCTION, parties, None),
    _route("DELETE", _FUNCTION, withdraw, None),
    _route("PATCH", f"{_FUNCTION}/add", add, AuthorizeOne),
    _route("PATCH", f"{_FUNCTION}/remove", remove, AuthorizeOne),
    _route("POST", _VERSION, authorize_version, Authorize),
    _route("GET", _VERSION, version_parties, None),
    _route("DELETE", _VERSION, withdraw_version, None),
    _route("PATCH", f"{_VERSION}/add", add_version, AuthorizeOne),
    _route("PATCH", f"{_VERSION}/remove", remove_version, AuthorizeOne),
)
