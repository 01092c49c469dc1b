"""Records in NATS KV buckets, on file storage but for the instances.

Every write may be conditional on the record's revision, and a change that reads before it writes
should be: then of two who change at once, one is told to read again.
"""

from dataclasses import replace

import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue

from gateway.domain.model import (
    ApiKey,
    KeyRemoved,
    Record,
    RecordError,
    Removed,
    VersionRemoved,
    encode,
)
from gateway.store.connection import ANSWER_WITHIN_S, Connection, translated
from gateway.store.errors import ConflictError, StoreUnavailableError
from gateway.store.feed import Entry, Feed, is_deletion
from gateway.store.names import (
    BUCKETS,
    FUNCTIONS,
    IN_MEMORY,
    KEYS,
    place_of,
    record_at,
    removed_at,
)

_NAME_IN_USE = 10058
"""JetStream's code for a stream of this name with another configuration."""
_NO_MESSAGE = 10037
"""JetStream's code for a stream that has no message of this subject."""
_MARKER_TTL_S = 7 * 86_400
"""How long a deletion leaves a trace. Watchers need it only while they are connected."""
_ATTEMPTS = 5
_ALL_READ = "all read"


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
        return await self.put_raw(bucket, name, encode(record), revision)

    async def get(self, name: Removed) -> tuple[Record, int] | None:
        """Return the record called ``name`` and its revision; `None` when there is none.

        Raises `RecordError` when it cannot be read.
        """
        bucket, key = place_of(name)
        found = await self.get_raw(bucket, key)
        if found is None:
            return None
        data, revision = found
        return record_at(bucket, key, data), revision

    async def get_key(self, key_id: str) -> tuple[ApiKey, int] | None:
        """Return a key and its revision."""
        found = await self.get(KeyRemoved(key_id))
        if found is None:
            return None
        record, revision = found
        if not isinstance(record, ApiKey):
            raise RecordError("the document is of another kind")
        return record, revision

    async def delete(self, name: Removed, revision: int | None = None) -> int:
        """Delete a record and return the revision of its end, whether it was there or not.

        Raises `ConflictError` when it is not at the ``revision`` given.
        """
        return await self.delete_raw(*place_of(name), revision)

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int:
        """Write what is no record, as `put` does; ``name`` is a valid KV key."""
        with translated():
            kv = await self._bucket(bucket)
            if revision is None:
                return await kv.put(name, data)
            if revision == 0:
                return await kv.create(name, data)
            return await kv.update(name, data, last=revision)

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None:
        """Return what is written under ``name`` and its revision; `None` when nothing is."""
        with translated():
            try:
                entry = await (await self._bucket(bucket)).get(name)
            except nats.js.errors.KeyNotFoundError:
                return None
        return entry.value or b"", entry.revision or 0

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int:
        """Delete what is written under ``name``, as `delete` does."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        with translated():
            ack = await self._jetstream().publish(
                f"$KV.{self.full_name(bucket)}.{name}", headers=headers, msg_ttl=_MARKER_TTL_S
            )
        return ack.seq

    async def entries(self, bucket: str) -> list[Entry]:
        """Return everything in ``bucket`` as it is now."""
        entries: list[Entry] = []
        feed = Feed(self.full_name(bucket), entries.append, lambda: feed.break_off(_ALL_READ))
        try:
            await feed.open(self.connection.connected_client())
            reason = await feed.wait_broken()
            if reason != _ALL_READ:
                raise StoreUnavailableError(reason)
        finally:
            await feed.close()
        return [entry for entry in entries if entry.data is not None]

    async def latest(self, bucket: str, pattern: str) -> Entry | None:
        """Return what was written or deleted last of the names that match ``pattern``.

        ``*`` stands for one token, a final ``>`` for all that follow. `None` when there is nothing,
        and nothing was deleted within a week.
        """
        full_name = self.full_name(bucket)
        prefix = f"$KV.{full_name}."
        with translated():
            try:
                message = await self._jetstream().get_last_msg(f"KV_{full_name}", prefix + pattern)
            except nats.js.errors.NotFoundError as error:
                if error.err_code != _NO_MESSAGE:
                    raise
                return None
        name = (message.subject or "").removeprefix(prefix)
        data = None if is_deletion(message.headers) else message.data
        return Entry(name, data, message.seq or 0)

    async def deleted_version(self, version_id: str) -> VersionRemoved | None:
        """Return the name of a version that was deleted within a week, `None` for any other."""
        entry = await self.latest(FUNCTIONS, f"version.*.{version_id}")
        if entry is None or entry.data is not None:
            return None
        removed = removed_at(FUNCTIONS, entry.name)
        return removed if isinstance(removed, VersionRemoved) else None

    async def list_keys(self, account: str | None = None) -> tuple[list[ApiKey], list[str]]:
        """Return the keys of ``account``, or all, oldest first; and names that cannot be read."""
        keys, unreadable = [], []
        for name, data, _ in await self.entries(KEYS):
            try:
                record = record_at(KEYS, name, data or b"")
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
        in_memory = bucket in IN_MEMORY
        config = api.KeyValueConfig(
            bucket=self.full_name(bucket),
            history=1,
            storage=api.StorageType.MEMORY if in_memory else api.StorageType.FILE,
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
