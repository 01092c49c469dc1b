"""The store as one account sees it: other accounts' records are not there.

Whatever a caller of the API asks for goes through here, so that a forgotten check cannot show or
change what belongs to somebody else. Every write names the revision it replaces, which only a read
through here gives.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import orjson

from gateway.domain.documents import SCHEMA, Document, read
from gateway.domain.model import (
    Deployment,
    DeploymentRemoved,
    DetailsRemoved,
    Function,
    FunctionRemoved,
    FunctionVersion,
    Removed,
    Secrets,
    SecretsRemoved,
    VersionDetails,
    VersionRemoved,
)
from gateway.store.errors import StoreUnavailableError
from gateway.store.names import DETAILS, FUNCTIONS, META, place_of, reserved_name
from gateway.store.nats_kv import Store

Reached = Callable[[str, int], Awaitable[bool]]
"""Returns when the process's own model shows a revision of a bucket (`Watcher.reached`), or `False`
when it takes too long."""

Owned = Function | FunctionVersion | VersionDetails | Deployment | Secrets
Kind = TypeVar("Kind", Function, FunctionVersion, VersionDetails, Deployment, Secrets)


class AccountStores:
    """Gives each account its own store. Implements `gateway.domain.ports.AccountStores`."""

    def __init__(self, store: Store, reached: Reached) -> None:
        self._store = store
        self._reached = reached

    def of(self, account: str) -> "AccountStore":
        """Return the store as ``account`` sees it."""
        return AccountStore(self._store, account, self._reached)


class AccountStore:
    """Records of one account. Every call may raise `StoreUnavailableError`.

    A write returns when the model of this process shows it, so that who has an answer and asks
    again is told the same.
    """

    def __init__(self, store: Store, account: str, reached: Reached) -> None:
        self.account = account
        self._store = store
        self._reached = reached

    async def function(self, function_id: str) -> tuple[Function, int] | None:
        return await self._own(Function, FunctionRemoved(function_id))

    async def version(
        self, function_id: str, version_id: str
    ) -> tuple[FunctionVersion, int] | None:
        return await self._own(FunctionVersion, VersionRemoved(function_id, version_id))

    async def details(self, function_id: str, version_id: str) -> tuple[VersionDetails, int] | None:
        return await self._own(VersionDetails, DetailsRemoved(function_id, version_id))

    async def deployment(self, function_id: str, version_id: str) -> tuple[Deployment, int] | None:
        return await self._own(Deployment, DeploymentRemoved(function_id, version_id))

    async def secrets(self, function_id: str, version_id: str) -> tuple[Secrets, int] | None:
        return await self._own(Secrets, SecretsRemoved(function_id, version_id))

    async def show_deployments(self) -> None:
        """Return when the model shows every deployment that is in the store."""
        await self._show(DETAILS, "deployment.>")

    async def reserved(self) -> tuple[Mapping[str, int], int]:
        """Return which functions are being registered, each until when, and the revision.

        What is not among them any more is shown by the model. Unix seconds.
        """
        found = await self._store.get_raw(META, reserved_name(self.account))
        await self._show(FUNCTIONS, "version.>")
        if found is None:
            return {}, 0
        document, revision = found
        until = Document(read(document).mapping("until"))
        return {name: until.number(name) for name in until.names()}, revision

    async def reserve(self, until: Mapping[str, int], revision: int) -> None:
        """Write what `reserved` returned, changed. Raises `ConflictError`."""
        document = {"schema": SCHEMA, "kind": "reserved", "until": dict(until)}
        name = reserved_name(self.account)
        await self._store.put_raw(META, name, orjson.dumps(document), revision)

    async def put(self, record: Owned, revision: int) -> int:
        """Write a record of this account in place of ``revision``, 0 for a new one.

        Returns its new revision. Raises `ConflictError` when it was changed or made meanwhile.
        """
        if record.account != self.account:
            raise AssertionError(f"a record of {record.account} written for {self.account}")
        written = await self._store.put(record, revision)
        await self._reached(place_of(record)[0], written)
        return written

    async def delete(self, name: Removed, revision: int) -> None:
        """Delete the record whose ``revision`` was read here. Raises `ConflictError`."""
        ended = await self._store.delete(name, revision)
        await self._reached(place_of(name)[0], ended)

    async def _show(self, bucket: str, pattern: str) -> None:
        """Return when the model shows what is in the store by now."""
        latest = await self._store.latest(bucket, pattern)
        if latest is not None and not await self._reached(bucket, latest.revision):
            raise StoreUnavailableError(f"{bucket} cannot be followed")

    async def _own(self, kind: type[Kind], name: Removed) -> tuple[Kind, int] | None:
        found = await self._store.get(name)
        if found is None:
            return None
        record, revision = found
        if not isinstance(record, kind) or record.account != self.account:
            return None
        return record, revision
