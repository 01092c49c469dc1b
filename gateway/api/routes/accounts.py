"""Accounts, and the clients (subjects of JWTs) that act for them (`docs/wire.md` §14.1).

NVCF has one scope for all of these routes. Here ``account_setup``, which API keys can have, is
limited to the caller's own account: get it, rename it. Everything else, quotas and the association
of clients included, needs ``admin:account_setup``, which JWTs of the issuer and admin tokens of the
default account can have. For a caller without it, other accounts do not exist.
"""

import re
from dataclasses import replace

from gateway.api.access import AnyCall
from gateway.api.route import AnyRoute, Api, Call, Listing, Route, batches_of
from gateway.api.schemas.accounts import (
    AccountResponse,
    AccountsResponse,
    AccountView,
    ClientBody,
    ClientResponse,
    ClientView,
    CreateAccount,
    UpdateAccount,
)
from gateway.auth.scopes import ADMIN_SETUP, SETUP
from gateway.domain.compare_and_set import compare_and_delete, compare_and_set
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Account, Client
from gateway.errors import BadRequest, Conflict, Forbidden, NotFound, StoreUnavailable

_is_name = re.compile(r"[\x21-\x7e]{1,128}").fullmatch


async def create(api: Api, call: Call[CreateAccount, None]) -> AccountResponse:
    """Create an account."""
    credentials = api.identity.credentials
    nca_id, body = call.variable("ncaId"), call.body
    if _is_name(nca_id) is None or nca_id == "*":
        raise BadRequest("An account's id has 1 to 128 visible ASCII characters, and is not *")
    client_id = body.admin_client_id
    if client_id is not None and await credentials.client(client_id) is not None:
        raise Conflict("The client acts for an account already")
    account = body.apply(Account(nca_id, body.name, created_at=timestamp(api.clock())))
    try:
        await credentials.put(account, 0)
    except Conflict:
        raise Conflict("The account exists already") from None
    if client_id is not None:
        await credentials.put(Client(client_id, nca_id), 0)
    return AccountResponse(account=_view(account, [client_id] if client_id else []))


async def list_accounts(api: Api, call: Call[None, None]) -> Listing:  # noqa: ARG001
    """List every account."""
    accounts = await api.identity.credentials.accounts()
    clients: dict[str, list[str]] = {}
    for client in await api.identity.credentials.clients():
        clients.setdefault(client.account, []).append(client.client_id)
    views = batches_of(accounts, lambda account: _view(account, clients.get(account.nca_id, [])))
    return Listing("cloudAccounts", views, dict)


async def get(api: Api, call: Call[None, None]) -> AccountResponse:
    """Get an account."""
    account, _ = await _find(api, call)
    return await _respond(api, account)


async def update(api: Api, call: Call[UpdateAccount, None]) -> AccountResponse:
    """Update an account's name, or its limits."""
    body = call.body

    async def read() -> tuple[Account, int]:
        found = await _find(api, call)
        if body.apply(found[0]) != found[0] and not _is_admin(call):
            raise Forbidden(f"The credential lacks the scope {ADMIN_SETUP}")
        return found

    def change(account: Account) -> Account:
        return body.apply(replace(account, name=body.name or account.name))

    changed = await compare_and_set(read, change, api.identity.credentials.put)
    assert changed is not None
    return await _respond(api, changed)


async def delete(api: Api, call: Call[None, None]) -> None:
    """Delete an account that has no functions, with its keys and clients."""

    async def read() -> tuple[Account, int]:
        account, revision = await _find(api, call)
        if api.catalog.function_count(account.nca_id):
            raise Conflict("The account has functions: delete them first")
        return account, revision

    try:
        await compare_and_delete(read, lambda account, revision: _delete(api, account, revision))
    except StoreUnavailable as error:
        raise StoreUnavailable(
            "The store cannot be written: the account was not deleted, but some of its keys may be "
            "revoked. Delete it again",
            cause=str(error),
        ) from error


async def associate(api: Api, call: Call[ClientBody, None]) -> AccountResponse:
    """Associate a client with an account. A client acts for one account."""
    account, _ = await _find(api, call)
    try:
        await api.identity.credentials.put(Client(call.body.client_id, account.nca_id), 0)
    except Conflict:
        raise Conflict("The client acts for an account already") from None
    return await _respond(api, account)


async def disassociate(api: Api, call: Call[ClientBody, None]) -> AccountResponse:
    """Disassociate a client from an account."""
    account, _ = await _find(api, call)
    if not await _delete_client(api, call.body.client_id, account.nca_id):
        raise NotFound("The client does not act for the account")
    return await _respond(api, account)


async def get_client(api: Api, call: Call[None, None]) -> ClientResponse:
    """Get a client."""
    found = await api.identity.credentials.client(call.variable("clientId"))
    if found is None or not _sees(call, found[0].account):
        raise NotFound("There is no such client")
    client = found[0]
    return ClientResponse(client=ClientView(client_id=client.client_id, nca_id=client.account))


async def _find(api: Api, call: AnyCall) -> tuple[Account, int]:
    """Return the account that a call names, and its revision. Raises `NotFound`."""
    nca_id = call.variable("ncaId")
    found = await api.identity.credentials.account(nca_id) if _sees(call, nca_id) else None
    if found is None:
        raise NotFound("There is no such account")
    return found


async def _delete(api: Api, account: Account, revision: int) -> None:
    """Revoke the account's keys, delete its clients and what is sealed, then its record.

    Raises `Conflict` if one of them was changed at the same time. The record is deleted last: an
    account whose deletion was interrupted can be deleted again.
    """
    credentials = api.identity.credentials
    for key in await credentials.keys(account.nca_id):
        found = None if key.is_revoked else await credentials.key(account.nca_id, key.key_id)
        if found is not None:
            await credentials.put(replace(found[0], is_revoked=True), found[1])
    for client_id in await _client_ids(api, account.nca_id):
        await _delete_client(api, client_id, account.nca_id)
    await api.telemetry_endpoints.delete(account.nca_id)
    await api.registry_credentials.delete(account.nca_id)
    await credentials.delete(account.key, revision)


async def _delete_client(api: Api, client_id: str, nca_id: str) -> bool:
    """Delete a client of an account; return whether there was one. May raise `Conflict`."""
    found = await api.identity.credentials.client(client_id)
    if found is None or found[0].account != nca_id:
        return False
    client, revision = found
    await api.identity.credentials.delete(client.key, revision)
    return True


async def _client_ids(api: Api, nca_id: str) -> list[str]:
    clients = await api.identity.credentials.clients()
    return [client.client_id for client in clients if client.account == nca_id]


async def _respond(api: Api, account: Account) -> AccountResponse:
    return AccountResponse(account=_view(account, await _client_ids(api, account.nca_id)))


def _is_admin(call: AnyCall) -> bool:
    return ADMIN_SETUP in call.principal.scopes


def _sees(call: AnyCall, nca_id: str) -> bool:
    return _is_admin(call) or nca_id == call.account


def _view(account: Account, client_ids: list[str]) -> AccountView:
    return AccountView(
        nca_id=account.nca_id,
        name=account.name,
        admin_client_ids=client_ids,
        client_ids=client_ids,
        max_functions_allowed=account.max_functions,
        max_tasks_allowed=account.max_tasks,
        max_telemetries_allowed=account.max_telemetries,
        max_registry_credentials_allowed=account.max_registry_credentials,
        created_at=account.created_at or None,
    )


_ACCOUNTS = "/v2/nvcf/accounts"
_ACCOUNT = f"{_ACCOUNTS}/{{ncaId}}"
_CLIENTS = f"{_ACCOUNT}/clients"
_TAG = "accounts"
_ADMIN = (ADMIN_SETUP,)
_OWN = (SETUP, ADMIN_SETUP)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        _ACCOUNT,
        create,
        "Create an account",
        _TAG,
        _ADMIN,
        AccountResponse,
        CreateAccount,
    ),
    Route("GET", _ACCOUNTS, list_accounts, "List accounts", _TAG, _ADMIN, AccountsResponse),
    Route("GET", _ACCOUNT, get, "Get an account", _TAG, _OWN, AccountResponse),
    Route(
        "PATCH",
        _ACCOUNT,
        update,
        "Update an account",
        _TAG,
        _OWN,
        AccountResponse,
        UpdateAccount,
    ),
    Route("DELETE", _ACCOUNT, delete, "Delete an account", _TAG, _ADMIN, status=204),
    Route(
        "PATCH",
        f"{_CLIENTS}/associate",
        associate,
        "Associate a client with an account",
        _TAG,
        _ADMIN,
        AccountResponse,
        ClientBody,
    ),
    Route(
        "PATCH",
        f"{_CLIENTS}/disassociate",
        disassociate,
        "Disassociate a client from an account",
        _TAG,
        _ADMIN,
        AccountResponse,
        ClientBody,
    ),
    Route(
        "GET",
        "/v2/nvcf/clients/{clientId}",
        get_client,
        "Get a client",
        _TAG,
        _OWN,
        ClientResponse,
    ),
)
