"""The store as one account sees it: records of other accounts do not exist.

Routes access the records of an account only through here, so that a forgotten check cannot show or
change another account's records. Every write names the revision that it replaces; only a read
through here returns one.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import orjson

from gateway.domain.documents import SCHEMA, Document, read
from gateway.domain.model import (
    AccountSecrets,
    AccountSecretsKey,
    Deployment,
    DeploymentKey,
    DetailsKey,
    Function,
    FunctionKey,
    FunctionVersion,
    RecordKey,
    Secrets,
    SecretsKey,
    VersionDetails,
    VersionKey,
)
from gateway.domain.ports import Owned
from gateway.errors import StoreUnavailable
from gateway.store.names import DETAILS, FUNCTIONS, META, location_of, reserved_name
from gateway.store.records import Store

WaitUntilShown = Callable[[str, int], Awaitable[bool]]
"""Waits until the model of this process shows a revision of a bucket; returns `False` if that takes
too long (`gateway.store.watcher.Watcher.wait_until_shown`)."""

Kind = TypeVar(
    "Kind", Function, FunctionVersion, VersionDetails, Deployment, Secrets, AccountSecrets
)


class AccountStores:
    """Gives each account its own store. Implements `gateway.domain.ports.AccountStores`."""

    def __init__(self, store: Store, wait_until_shown: WaitUntilShown) -> None:
        self._store = store
        self._wait_until_shown = wait_until_shown

    def of(self, account: str) -> "AccountStore":
        """Return the store as ``account`` sees it."""
        return AccountStore(self._store, account, self._wait_until_shown)


class AccountStore:
    """Records of one account. Implements `gateway.domain.ports.AccountStore`.

    Every method may raise `StoreUnavailable`, and writes `Conflict`. A write returns when the model
    of this process shows it, so that a caller who reads again gets what was written.
    """

    def __init__(self, store: Store, account: str, wait_until_shown: WaitUntilShown) -> None:
        self.account = account
        self._store = store
        self._wait_until_shown = wait_until_shown

    async def function(self, function_id: str) -> tuple[Function, int] | None:
        return await self._own(Function, FunctionKey(function_id))

    async def version(
        self, function_id: str, version_id: str
    ) -> tuple[FunctionVersion, int] | None:
        return await self._own(FunctionVersion, VersionKey(function_id, version_id))

    async def details(self, function_id: str, version_id: str) -> tuple[VersionDetails, int] | None:
        return await self._own(VersionDetails, DetailsKey(function_id, version_id))

    async def deployment(self, function_id: str, version_id: str) -> tuple[Deployment, int] | None:
        return await self._own(Deployment, DeploymentKey(function_id, version_id))

    async def secrets(self, function_id: str, version_id: str) -> tuple[Secrets, int] | None:
        return await self._own(Secrets, SecretsKey(function_id, version_id))

    async def account_secrets(self, topic: str) -> tuple[AccountSecrets, int] | None:
        return await self._own(AccountSecrets, AccountSecretsKey(self.account, topic))

    async def show_versions(self) -> None:
        await self._show(DETAILS, "details")
        await self._show(FUNCTIONS, "version")

    async def show_deployments(self) -> None:
        await self._show(DETAILS, "deployment")

    async def reservations(self) -> tuple[Mapping[str, int], int]:
        found = await self._store.get_raw(META, reserved_name(self.account))
        await self._show(FUNCTIONS, "version")
        if found is None:
            return {}, 0
        document, revision = found
        until = Document(read(document).mapping("until"))
        return {name: until.number(name) for name in until.names()}, revision

    async def put_reservations(self, until: Mapping[str, int], revision: int) -> None:
        document = {"schema": SCHEMA, "kind": "reserved", "until": dict(until)}
        name = reserved_name(self.account)
        await self._store.put_raw(META, name, orjson.dumps(document), revision)

    async def put(self, record: Owned, revision: int) -> int:
        if record.account != self.account:
            raise AssertionError(f"a record of {record.account} written for {self.account}")
        written = await self._store.put(record, revision)
        await self._wait_until_shown(location_of(record.key).bucket, written)
        return written

    async def delete(self, key: RecordKey, revision: int) -> None:
        deleted = await self._store.delete(key, revision)
        await self._wait_until_shown(location_of(key).bucket, deleted)

    async def _show(self, bucket: str, kind: str) -> None:
        """Wait until the model shows the latest write to a name that begins with ``kind.``."""
        latest = await self._store.latest_revision(bucket, kind)
        if latest and not await self._wait_until_shown(bucket, latest):
            raise StoreUnavailable(cause=f"{bucket} cannot be followed")

    async def _own(self, kind: type[Kind], key: RecordKey) -> tuple[Kind, int] | None:
        found = await self._store.get(key)
        if found is None:
            return None
        record, revision = found
        if not isinstance(record, kind) or record.account != self.account:
            return None
        return record, revision
