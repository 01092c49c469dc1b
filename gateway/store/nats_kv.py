"""Functions, versions and keys in NATS KV buckets on file storage.

Every write may be conditional on the record's revision, and a change that reads before it writes
should be: then of two who change at once, one is told to read again.
"""

from dataclasses import replace
from typing import TypeVar

import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue

from gateway.functions.model import (
    ApiKey,
    Function,
    FunctionRemoved,
    FunctionVersion,
    KeyRemoved,
    Record,
    RecordError,
    Removed,
    VersionRemoved,
    encode,
)
from gateway.store.connection import ANSWER_WITHIN_S, Connection, translated
from gateway.store.errors import ConflictError, StoreUnavailableError
from gateway.store.feed import Entry, Feed
from gateway.store.names import BUCKETS, KEYS, place_of, record_at

_NAME_IN_USE = 10058
"""JetStream's code for a stream of this name with another configuration."""
_MARKER_TTL_S = 7 * 86_400
"""How long a deletion leaves a trace. Watchers need it only while they are connected."""
_ATTEMPTS = 5
_ALL_READ = "all read"

Kind = TypeVar("Kind", Function, FunctionVersion, ApiKey)


class Store:
    """Reads and writes records. Every call may raise `StoreUnavailableError`."""

    def __init__(self, connection: Connection, prefix: str = "gateway", replicas: int = 1) -> None:
        """``prefix`` begins the buckets' names.

        ``replicas`` is how many servers keep each bucket, from when it is made.
        """
        self.connection = connection
        self._prefix = prefix
        self._replicas = replicas

    def full_name(self, bucket: str) -> str:
        """Return the name by which NATS knows a bucket of `gateway.store.names`."""
        return f"{self._prefix}_{bucket}"

    async def prepare(self, *buckets: str) -> None:
        """Make the buckets (all without an argument) that are not there; leave the others."""
        for bucket in buckets or BUCKETS:
            with translated():
                try:
                    await self._bucket(bucket)
                except nats.js.errors.BucketNotFoundError:
                    await self._make(bucket)

    async def put(self, record: Record, revision: int | None = None) -> int:
        """Write a record and return its new revision.

        ``revision`` is the one that is to be replaced, 0 for a record that must not exist yet,
        `None` to write in any case. Raises `ConflictError`.
        """
        bucket, name = place_of(record)
        with translated():
            kv = await self._bucket(bucket)
            if revision is None:
                return await kv.put(name, encode(record))
            if revision == 0:
                return await kv.create(name, encode(record))
            return await kv.update(name, encode(record), last=revision)

    async def get(self, name: Removed) -> tuple[Record, int] | None:
        """Return the record called ``name`` and its revision; `None` when there is none.

        Raises `RecordError` when it cannot be read.
        """
        bucket, key = place_of(name)
        with translated():
            try:
                entry = await (await self._bucket(bucket)).get(key)
            except nats.js.errors.KeyNotFoundError:
                return None
        return record_at(bucket, key, entry.value or b""), entry.revision or 0

    async def get_function(self, function_id: str) -> tuple[Function, int] | None:
        """Return what is common to a function's versions, and its revision."""
        return _of(Function, await self.get(FunctionRemoved(function_id)))

    async def get_version(
        self, function_id: str, version_id: str
    ) -> tuple[FunctionVersion, int] | None:
        """Return a version and its revision."""
        return _of(FunctionVersion, await self.get(VersionRemoved(function_id, version_id)))

    async def get_key(self, key_id: str) -> tuple[ApiKey, int] | None:
        """Return a key and its revision."""
        return _of(ApiKey, await self.get(KeyRemoved(key_id)))

    async def delete(self, name: Removed, revision: int | None = None) -> None:
        """Delete a record; raises `ConflictError` when it is not at the ``revision`` given."""
        bucket, key = place_of(name)
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        with translated():
            await self._jetstream().publish(
                f"$KV.{self.full_name(bucket)}.{key}", headers=headers, msg_ttl=_MARKER_TTL_S
            )

    async def list_keys(self, account: str | None = None) -> tuple[list[ApiKey], list[str]]:
        """Return the keys of ``account``, or all, oldest first; and names that cannot be read."""
        entries: list[Entry] = []
        feed = Feed(self.full_name(KEYS), entries.append, lambda: feed.break_off(_ALL_READ))
        try:
            await feed.open(self.connection.connected_client())
            reason = await feed.wait_broken()
            if reason != _ALL_READ:
                raise StoreUnavailableError(reason)
        finally:
            await feed.close()
        keys, unreadable = [], []
        for name, data, _ in entries:
            if data is None:
                continue
            try:
                record = record_at(KEYS, name, data)
            except RecordError:
                unreadable.append(name)
                continue
            if isinstance(record, ApiKey) and account in (None, record.account):
                keys.append(record)
        keys.sort(key=lambda key: (key.created_at, key.key_id))
        return keys, unreadable

    async def revoke_key(self, key_id: str) -> ApiKey | None:
        """Revoke a key and return it; `None` when there is none of this id."""
        for _ in range(_ATTEMPTS):
            found = await self.get_key(key_id)
            if found is None:
                return None
            key, revision = found
            revoked = replace(key, is_revoked=True)
            try:
                await self.put(revoked, revision)
            except ConflictError:
                continue
            return revoked
        raise ConflictError("the key is being changed by somebody else")

    async def _make(self, bucket: str) -> None:
        config = api.KeyValueConfig(
            bucket=self.full_name(bucket),
            history=1,
            storage=api.StorageType.FILE,
            replicas=self._replicas,
        )
        try:
            await self._jetstream().create_key_value(config)
        except nats.js.errors.APIError as error:
            # Another process may have made it meanwhile, with other replicas.
            if error.err_code != _NAME_IN_USE:
                raise

    async def _bucket(self, bucket: str) -> KeyValue:
        return await self._jetstream().key_value(self.full_name(bucket))

    def _jetstream(self) -> JetStreamContext:
        return self.connection.connected_client().jetstream(timeout=ANSWER_WITHIN_S)


def _of(kind: type[Kind], found: tuple[Record, int] | None) -> tuple[Kind, int] | None:
    if found is None:
        return None
    record, revision = found
    if not isinstance(record, kind):
        raise RecordError("the document is of another kind")
    return record, revision
