"""API keys, accounts and clients, for the routes about keys and accounts.

An API key is accessible only through its account. Accounts and clients are accessible by name: the
routes check whether the caller may.
"""

import re
from typing import TypeVar

from gateway.domain.model import (
    Account,
    AccountKey,
    ApiKey,
    Client,
    ClientKey,
    RecordError,
)
from gateway.store.account_store import WaitUntilShown
from gateway.store.names import ACCOUNTS, location_of, record_at
from gateway.store.records import Store

Credential = ApiKey | Account | Client
DeletableKey = AccountKey | ClientKey
Kind = TypeVar("Kind", Account, Client)

_is_key_id = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


class CredentialStore:
    """Implements `gateway.api.identity.CredentialRecords`.

    Every method may raise `StoreUnavailable`, and writes `Conflict`. A write returns when the model
    of this process shows it.
    """

    def __init__(self, store: Store, wait_until_shown: WaitUntilShown) -> None:
        self._store = store
        self._wait_until_shown = wait_until_shown

    async def keys(self, account: str) -> list[ApiKey]:
        """Return the API keys of ``account``, oldest first."""
        return (await self._store.list_keys(account))[0]

    async def key(self, account: str, key_id: str) -> tuple[ApiKey, int] | None:
        """Return an API key of ``account`` and its revision."""
        if _is_key_id(key_id) is None:
            return None
        found = await self._store.get_key(key_id)
        return found if found is not None and found[0].account == account else None

    async def account(self, nca_id: str) -> tuple[Account, int] | None:
        """Return an account and its revision."""
        found = await self._store.get(AccountKey(nca_id))
        if found is None or not isinstance(found[0], Account):
            return None
        return found[0], found[1]

    async def client(self, client_id: str) -> tuple[Client, int] | None:
        """Return a client and its revision."""
        found = await self._store.get(ClientKey(client_id))
        if found is None or not isinstance(found[0], Client):
            return None
        return found[0], found[1]

    async def accounts(self) -> list[Account]:
        """Return every account, by name."""
        return sorted(await self._all(Account), key=lambda account: account.nca_id)

    async def clients(self) -> list[Client]:
        """Return every client, by name."""
        return sorted(await self._all(Client), key=lambda client: client.client_id)

    async def put(self, record: Credential, revision: int) -> int:
        """Write a record in place of ``revision``, 0 for a new one; return its new revision."""
        written = await self._store.put(record, revision)
        await self._wait_until_shown(location_of(record.key).bucket, written)
        return written

    async def delete(self, key: DeletableKey, revision: int) -> None:
        """Delete a record at the ``revision`` that was read."""
        deleted = await self._store.delete(key, revision)
        await self._wait_until_shown(location_of(key).bucket, deleted)

    async def _all(self, kind: type[Kind]) -> list[Kind]:
        found = []
        for name, data, _ in await self._store.entries(ACCOUNTS):
            try:
                record = record_at(ACCOUNTS, name, data or b"")
            except RecordError:
                continue
            if isinstance(record, kind):
                found.append(record)
        return found
