"""Authorizations: other accounts that may use a function or a version, or all.

Source: `docs/wire.md` §14.2, §14.3.

There are two sets of parties, one of a function for all of its versions and one of each version;
an account, or the caller's client, needs to be in one of them. The view of a version shows both.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from gateway.api.access import AnyCall, find_owned_function, not_found, read_owned
from gateway.api.route import AnyRoute, Api, Call, Listing, Route, batches_of
from gateway.api.schemas.authorizations import (
    Authorize,
    AuthorizeOne,
    Party,
    PartyView,
    SharedListResponse,
    SharedResponse,
    SharedView,
)
from gateway.domain.compare_and_set import change_version, compare_and_set
from gateway.domain.model import Function, FunctionVersion
from gateway.domain.parties import party_of, split_party
from gateway.errors import BadRequest, Conflict, NotFound
from wire.ids import FunctionId

ALL_ACCOUNTS = "*"

Shared = Function | FunctionVersion
AnyShared = TypeVar("AnyShared", Function, FunctionVersion)


async def authorize(api: Api, call: Call[Authorize, None]) -> SharedResponse:
    """Set the accounts that may use every version."""
    return await _change_function(api, call, lambda shared: _set_parties(api, call, shared))


async def authorize_version(api: Api, call: Call[Authorize, None]) -> SharedResponse:
    """Set the accounts that may use a version."""
    return await _change_version(api, call, lambda shared: _set_parties(api, call, shared))


async def parties(api: Api, call: Call[None, None]) -> Listing:
    """List the authorized accounts of each version."""
    entry = find_owned_function(api, call)
    versions = sorted(entry.versions.values(), key=lambda v: (v.created_at, v.version_id))
    # Each view has up to 1000 accounts.
    views = batches_of(versions, lambda version: _view(version, entry.function), size=4)
    return Listing("functions", views, dict)


async def version_parties(api: Api, call: Call[None, None]) -> SharedResponse:
    """List the authorized accounts of a version."""
    version = await read_owned(api, call)
    entry = api.catalog.function(call.function_id)
    return SharedResponse(function=_view(version, entry.function if entry else None))


async def add(api: Api, call: Call[AuthorizeOne, None]) -> SharedResponse:
    """Authorize an account for every version."""
    return await _change_function(
        api, call, lambda shared: replace(shared, shared_with=_add(shared, _party(api, call)))
    )


async def add_version(api: Api, call: Call[AuthorizeOne, None]) -> SharedResponse:
    """Authorize an account for a version."""
    return await _change_version(
        api, call, lambda shared: replace(shared, shared_with=_add(shared, _party(api, call)))
    )


async def remove(api: Api, call: Call[AuthorizeOne, None]) -> SharedResponse:
    """Remove the authorization of an account for every version."""
    party = _party_in(call.body.authorized_party)
    return await _change_function(
        api, call, lambda shared: replace(shared, shared_with=_remove(shared, party))
    )


async def remove_version(api: Api, call: Call[AuthorizeOne, None]) -> SharedResponse:
    """Remove the authorization of an account for a version."""
    party = _party_in(call.body.authorized_party)
    return await _change_version(
        api, call, lambda shared: replace(shared, shared_with=_remove(shared, party))
    )


async def withdraw(api: Api, call: Call[None, None]) -> SharedResponse:
    """Remove all authorizations of a function."""
    return await _change_function(
        api, call, lambda shared: replace(shared, shared_with=frozenset(), is_public=False)
    )


async def withdraw_version(api: Api, call: Call[None, None]) -> SharedResponse:
    """Remove all authorizations of a version. Those of its function stay."""
    return await _change_version(
        api, call, lambda shared: replace(shared, shared_with=frozenset(), is_public=False)
    )


async def _change_function(
    api: Api, call: AnyCall, change: Callable[[Function], Function]
) -> SharedResponse:
    """Change the authorizations of the caller's own function."""
    store = call.store(api)

    async def read() -> tuple[Function, int]:
        find_owned_function(api, call)
        found = await store.function(call.function_id)
        # Missing if it was deleted with the last version while another version was registered.
        return found or (Function(FunctionId(call.function_id), call.account), 0)

    changed = await compare_and_set(read, change, store.put)
    assert changed is not None
    return SharedResponse(function=_view(changed, None))


async def _change_version(
    api: Api, call: AnyCall, change: Callable[[FunctionVersion], FunctionVersion]
) -> SharedResponse:
    """Change the authorizations of the caller's own version."""
    await read_owned(api, call)
    changed = await change_version(call.store(api), call.function_id, call.version_id, change)
    if changed is None:
        raise not_found(call.function_id, call.version_id)
    entry = api.catalog.function(call.function_id)
    return SharedResponse(function=_view(changed, entry.function if entry else None))


def _set_parties(api: Api, call: Call[Authorize, None], shared: AnyShared) -> AnyShared:
    accounts, is_public = _parties(api, call, call.body.authorized_parties)
    return replace(shared, shared_with=accounts, is_public=is_public)


def _parties(api: Api, call: AnyCall, named: list[Party]) -> tuple[frozenset[str], bool]:
    """Return the parties, and whether all accounts are meant. Raises `BadRequest`."""
    parties = [_check_party(api, call, party) for party in named]
    if ALL_ACCOUNTS in parties:
        if len(parties) > 1:
            raise BadRequest("'*' means all accounts: it must be the only party")
        return frozenset(), True
    return frozenset(parties), False


def _party(api: Api, call: Call[AuthorizeOne, None]) -> str:
    party = _check_party(api, call, call.body.authorized_party)
    if party == ALL_ACCOUNTS:
        raise BadRequest("'*' cannot be added: POST it as the only party")
    return party


def _party_in(party: Party) -> str:
    return party_of(party.nca_id, party.client_id or "")


def _check_party(api: Api, call: AnyCall, party: Party) -> str:
    """Return the party as records hold it. Raises `BadRequest` if it cannot be authorized."""
    if party.nca_id == call.account:
        raise BadRequest("An account cannot authorize itself")
    if party.nca_id == ALL_ACCOUNTS:
        if party.client_id:
            raise BadRequest("'*' means all accounts: it cannot have a clientId")
    elif not api.catalog.knows_account(party.nca_id):
        raise BadRequest("A party is not an account")
    if party.client_id:
        client = api.catalog.model.client(party.client_id)
        if client is None or client.account != party.nca_id:
            raise BadRequest("A party's clientId is not a client of its account")
    return _party_in(party)


def _add(shared: Shared, party: str) -> frozenset[str]:
    if not shared.shared_with and not shared.is_public:
        raise NotFound("No account is authorized yet: POST the first parties")
    if party in shared.shared_with:
        raise Conflict("The party is authorized already")
    return shared.shared_with | {party}


def _remove(shared: Shared, party: str) -> frozenset[str]:
    if party not in shared.shared_with:
        raise NotFound("The party is not authorized")
    return shared.shared_with - {party}


def _party_view(party: str) -> PartyView:
    account, client_id = split_party(party)
    return PartyView(nca_id=account, client_id=client_id or None)


def _view(shared: Shared, common: Function | None) -> SharedView:
    parties = shared.shared_with | (common.shared_with if common else frozenset())
    is_public = shared.is_public or (common is not None and common.is_public)
    named = [ALL_ACCOUNTS] if is_public else []
    return SharedView(
        id=shared.function_id,
        nca_id=shared.account,
        version_id=shared.version_id if isinstance(shared, FunctionVersion) else None,
        authorized_parties=[_party_view(party) for party in [*named, *sorted(parties)]],
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
    response = SharedListResponse if handle is parties else SharedResponse
    return Route(method, path, handle, summary, _TAG, _SCOPES, response, body)  # type: ignore[arg-type]  # any of the above


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
