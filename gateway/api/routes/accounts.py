"""Accounts, and which clients (subjects of JWTs) act for them (§2).

Upstream has one scope for all of it. Here ``account_setup``, which keys can have, is for the
caller's own account: look at it, name it. What touches others, quotas and who acts for whom needs
``admin:account_setup``, which JWTs of the issuer and admin tokens of the default account can have.
Others' accounts do not exist for who lacks it.
"""

import re
from dataclasses import replace

from gateway.api.access import AnyCall
from gateway.api.compare_and_set import ATTEMPTS, change_record
from gateway.api.identity import Credentials, Identity
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.accounts import (
    AccountAnswer,
    AccountsAnswer,
    AccountView,
    ClientAnswer,
    ClientBody,
    ClientView,
    CreateAccount,
    UpdateAccount,
)
from gateway.auth.scopes import ADMIN_SETUP, SETUP
from gateway.domain.account import MAX_FUNCTIONS
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Account, AccountRemoved, Client, ClientRemoved
from gateway.errors import BadRequest, Conflict, Forbidden, NotFound

_is_name = re.compile(r"[\x21-\x7e]{1,128}").fullmatch


class AccountRoutes:
    """The handlers."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def create(self, api: Api, call: Call[CreateAccount, None]) -> AccountAnswer:
        """Make an account."""
        nca_id, body = call.part("ncaId"), call.body
        if _is_name(nca_id) is None or nca_id == "*":
            raise BadRequest("An account's id has 1 to 128 visible ASCII characters, and is not *")
        client_id = body.admin_client_id
        if client_id is not None and await self._credentials.client(client_id) is not None:
            raise Conflict("The client acts for an account already")
        limit = body.max_functions_allowed or MAX_FUNCTIONS
        account = Account(nca_id, body.name, limit, timestamp(api.clock()))
        try:
            await self._credentials.put(account, 0)
        except Conflict:
            raise Conflict("The account is there already") from None
        if client_id is not None:
            await self._credentials.put(Client(client_id, nca_id), 0)
        return AccountAnswer(account=_view(account, [client_id] if client_id else []))

    async def list_accounts(self, api: Api, call: Call[None, None]) -> AccountsAnswer:  # noqa: ARG002
        """List every account."""
        accounts = await self._credentials.accounts()
        clients = await self._credentials.clients()
        of: dict[str, list[str]] = {}
        for client in clients:
            of.setdefault(client.account, []).append(client.client_id)
        return AccountsAnswer(
            cloud_accounts=[_view(one, of.get(one.nca_id, [])) for one in accounts]
        )

    async def get(self, api: Api, call: Call[None, None]) -> AccountAnswer:  # noqa: ARG002
        """Look at an account."""
        account, _ = await self._found(call)
        return await self._answer(account)

    async def update(self, api: Api, call: Call[UpdateAccount, None]) -> AccountAnswer:  # noqa: ARG002
        """Change an account's name, or how many functions it may have."""
        body = call.body

        async def read() -> tuple[Account, int]:
            found = await self._found(call)
            if body.max_functions_allowed is not None and not _is_admin(call):
                raise Forbidden(f"The credential lacks the scope {ADMIN_SETUP}")
            return found

        def change(account: Account) -> Account:
            return replace(
                account,
                name=body.name or account.name,
                max_functions=body.max_functions_allowed or account.max_functions,
            )

        changed = await change_record(self._credentials.put, read, change)
        assert changed is not None
        return await self._answer(changed)

    async def delete(self, api: Api, call: Call[None, None]) -> None:
        """Delete an account that has no functions; its keys and clients go with it."""
        for _ in range(ATTEMPTS):
            account, revision = await self._found(call)
            if api.catalog.function_count(account.nca_id):
                raise Conflict("The account has functions: delete them first")
            try:
                await self._end(account.nca_id, revision)
            except Conflict:
                continue
            return
        raise Conflict

    async def associate(self, api: Api, call: Call[ClientBody, None]) -> AccountAnswer:  # noqa: ARG002
        """Let a client act for an account. A client acts for one."""
        account, _ = await self._found(call)
        try:
            await self._credentials.put(Client(call.body.client_id, account.nca_id), 0)
        except Conflict:
            raise Conflict("The client acts for an account already") from None
        return await self._answer(account)

    async def disassociate(self, api: Api, call: Call[ClientBody, None]) -> AccountAnswer:  # noqa: ARG002
        """Let a client not act for an account any more."""
        account, _ = await self._found(call)
        if not await self._unlink(call.body.client_id, account.nca_id):
            raise NotFound("The client does not act for the account")
        return await self._answer(account)

    async def get_client(self, api: Api, call: Call[None, None]) -> ClientAnswer:  # noqa: ARG002
        """Look at a client."""
        found = await self._credentials.client(call.part("clientId"))
        if found is None or not _sees(call, found[0].account):
            raise NotFound("There is no such client")
        client = found[0]
        return ClientAnswer(client=ClientView(client_id=client.client_id, nca_id=client.account))

    async def _found(self, call: AnyCall) -> tuple[Account, int]:
        nca_id = call.part("ncaId")
        found = await self._credentials.account(nca_id) if _sees(call, nca_id) else None
        if found is None:
            raise NotFound("There is no such account")
        return found

    async def _end(self, nca_id: str, revision: int) -> None:
        """Delete an account and what opens it. Raises `Conflict` if somebody changed one of them.

        The account goes last: who dies before that leaves one that can be deleted again.
        """
        for key in await self._credentials.keys(nca_id):
            found = None if key.is_revoked else await self._credentials.key(nca_id, key.key_id)
            if found is not None:
                await self._credentials.put(replace(found[0], is_revoked=True), found[1])
        for client_id in await self._clients(nca_id):
            await self._unlink(client_id, nca_id)
        await self._credentials.delete(AccountRemoved(nca_id), revision)

    async def _unlink(self, client_id: str, nca_id: str) -> bool:
        found = await self._credentials.client(client_id)
        if found is None or found[0].account != nca_id:
            return False
        await self._credentials.delete(ClientRemoved(client_id), found[1])
        return True

    async def _clients(self, nca_id: str) -> list[str]:
        clients = await self._credentials.clients()
        return [client.client_id for client in clients if client.account == nca_id]

    async def _answer(self, account: Account) -> AccountAnswer:
        return AccountAnswer(account=_view(account, await self._clients(account.nca_id)))


def _is_admin(call: AnyCall) -> bool:
    return ADMIN_SETUP in call.principal.scopes


def _sees(call: AnyCall, nca_id: str) -> bool:
    return _is_admin(call) or nca_id == call.account


def _view(account: Account, client_ids: list[str]) -> AccountView:
    return AccountView(
        nca_id=account.nca_id,
        name=account.name,
        admin_client_ids=client_ids,
        max_functions_allowed=account.max_functions,
        created_at=account.created_at or None,
    )


def routes(identity: Identity) -> tuple[AnyRoute, ...]:
    """Return the routes about accounts and clients."""
    handlers = AccountRoutes(identity.credentials)
    tag, admin, anybody = "accounts", (ADMIN_SETUP,), (SETUP, ADMIN_SETUP)
    one = "/v2/nvcf/accounts/{ncaId}"
    clients = f"{one}/clients"
    answer = AccountAnswer
    return (
        Route("POST", one, handlers.create, "Make an account", tag, admin, answer, CreateAccount),
        Route(
            "GET",
            "/v2/nvcf/accounts",
            handlers.list_accounts,
            "List every account",
            tag,
            admin,
            AccountsAnswer,
        ),
        Route("GET", one, handlers.get, "Look at an account", tag, anybody, answer),
        Route(
            "PATCH", one, handlers.update, "Change an account", tag, anybody, answer, UpdateAccount
        ),
        Route("DELETE", one, handlers.delete, "Delete an account", tag, admin, status=204),
        Route(
            "PATCH",
            f"{clients}/associate",
            handlers.associate,
            "Let a client act for an account",
            tag,
            admin,
            answer,
            ClientBody,
        ),
        Route(
            "PATCH",
            f"{clients}/disassociate",
            handlers.disassociate,
            "Let a client not act for an account any more",
            tag,
            admin,
            answer,
            ClientBody,
        ),
        Route(
            "GET",
            "/v2/nvcf/clients/{clientId}",
            handlers.get_client,
            "Look at a client",
            tag,
            anybody,
            ClientAnswer,
        ),
    )
