"""Records in NATS KV buckets, on file storage except for instances.

A write may be conditional on the stored revision. A change that reads before it writes must be:
then one of two concurrent writers gets `Conflict` (`gateway.domain.compare_and_set`).
"""

from dataclasses import replace

import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue

from gateway.domain.compare_and_set import compare_and_set
from gateway.domain.model import (
    ApiKey,
    ApiKeyKey,
    Record,
    RecordError,
    RecordKey,
    VersionKey,
    encode,
)
from gateway.errors import StoreUnavailable
from gateway.store.connection import RESPONSE_WITHIN_S, StoreConnection, translate_errors
from gateway.store.feed import Entry, Feed, is_deletion
from gateway.store.names import (
    BUCKETS,
    FUNCTIONS,
    IN_MEMORY,
    KEYS,
    key_at,
    location_of,
    record_at,
)

_NAME_IN_USE = 10058
"""JetStream's code for a stream of this name with another configuration."""
_NO_MESSAGE = 10037
"""JetStream's code for a stream that has no message with this subject."""
_MARKER_TTL_S = 7 * 86_400
"""How long a deletion marker is kept. Feeds need it only while they are connected."""
_ALL_READ = "all read"


class Store:
    """Reads and writes records. Every method may raise `gateway.errors.StoreUnavailable`."""

    def __init__(
        self, connection: StoreConnection, prefix: str = "gateway", replicas: int = 1
    ) -> None:
        """``prefix`` begins the names of the buckets.

        ``replicas`` is the number of servers that keep a bucket; it is set when the bucket is made.
        """
        self.connection = connection
        self._prefix = prefix
        self._replicas = replicas

    def full_name(self, bucket: str) -> str:
        """Return the full name in NATS of a bucket of `gateway.store.names`."""
        return f"{self._prefix}_{bucket}"

    async def prepare(self, *buckets: str) -> None:
        """Make the buckets (all without an argument) that are not there; leave the others."""
        for bucket in buckets or BUCKETS:
            with translate_errors():
                try:
                    await self._bucket(bucket)
                except nats.js.errors.BucketNotFoundError:
                    await self._make(bucket)

    async def put(self, record: Record, revision: int | None = None) -> int:
        """Write a record and return its new revision.

        ``revision`` is the revision to replace, 0 for a record that must not exist yet, `None` for
        an unconditional write. Raises `gateway.errors.Conflict`.
        """
        return await self.put_raw(*location_of(record.key), encode(record), revision)

    async def get(self, key: RecordKey) -> tuple[Record, int] | None:
        """Return the record of ``key`` and its revision; `None` if there is none.

        Raises `RecordError` if the document cannot be read.
        """
        location = location_of(key)
        found = await self.get_raw(*location)
        if found is None:
            return None
        data, revision = found
        return record_at(*location, data), revision

    async def get_key(self, key_id: str) -> tuple[ApiKey, int] | None:
        """Return an API key and its revision; `None` if there is none. Raises `RecordError`."""
        found = await self.get(ApiKeyKey(key_id))
        if found is None:
            return None
        record, revision = found
        if not isinstance(record, ApiKey):
            raise RecordError("the document is of another kind")
        return record, revision

    async def delete(self, key: RecordKey, revision: int | None = None) -> int:
        """Delete a record, if it exists; return the revision of the deletion marker.

        Raises `gateway.errors.Conflict` if ``revision`` is given and is not the stored one.
        """
        return await self.delete_raw(*location_of(key), revision)

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int:
        """Write a document that is not a record, as `put` does; ``name`` is a valid KV key."""
        with translate_errors():
            kv = await self._bucket(bucket)
            if revision is None:
                return await kv.put(name, data)
            if revision == 0:
                return await kv.create(name, data)
            return await kv.update(name, data, last=revision)

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None:
        """Return the document called ``name`` and its revision; `None` if there is none."""
        with translate_errors():
            try:
                entry = await (await self._bucket(bucket)).get(name)
            except nats.js.errors.KeyNotFoundError:
                return None
        return entry.value or b"", entry.revision or 0

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int:
        """Delete the document called ``name``, as `delete` does."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        with translate_errors():
            ack = await self._jetstream().publish(
                f"$KV.{self.full_name(bucket)}.{name}", headers=headers, msg_ttl=_MARKER_TTL_S
            )
        return ack.seq

    async def entries(self, bucket: str) -> list[Entry]:
        """Return every entry that is in ``bucket`` now."""
        entries: list[Entry] = []
        feed = Feed(self.full_name(bucket), entries.append, lambda: feed.break_off(_ALL_READ))
        try:
            await feed.open(self.connection.connected_client())
            reason = await feed.wait_broken()
            if reason != _ALL_READ:
                raise StoreUnavailable(cause=reason)
        finally:
            await feed.close()
        return [entry for entry in entries if entry.data is not None]

    async def latest(self, bucket: str, pattern: str) -> Entry | None:
        """Return the last write or deletion of a name that matches ``pattern``.

        ``*`` matches one token, a final ``>`` all that follow. `None` if no name matches now and
        none was deleted within a week.
        """
        full_name = self.full_name(bucket)
        prefix = f"$KV.{full_name}."
        with translate_errors():
            try:
                message = await self._jetstream().get_last_msg(f"KV_{full_name}", prefix + pattern)
            except nats.js.errors.NotFoundError as error:
                if error.err_code != _NO_MESSAGE:
                    raise
                return None
        name = (message.subject or "").removeprefix(prefix)
        data = None if is_deletion(message.headers) else message.data
        return Entry(name, data, message.seq or 0)

    async def deleted_version(self, version_id: str) -> VersionKey | None:
        """Return the key of a version that was deleted within a week, `None` for any other."""
        entry = await self.latest(FUNCTIONS, f"version.*.{version_id}")
        if entry is None or entry.data is not None:
            return None
        key = key_at(FUNCTIONS, entry.name)
        return key if isinstance(key, VersionKey) else None

    async def list_keys(self, account: str | None = None) -> tuple[list[ApiKey], list[str]]:
        """Return API keys, oldest first, and the names of those that cannot be read.

        The keys of all accounts if ``account`` is `None`.
        """
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
        """Revoke an API key and return it; `None` if there is none with this id."""
        return await compare_and_set(
            lambda: self.get_key(key_id), lambda key: replace(key, is_revoked=True), self.put
        )

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
            # Another process has made it at the same time, with another number of replicas.
            if error.err_code != _NAME_IN_USE:
                raise

    async def _bucket(self, bucket: str) -> KeyValue:
        return await self._jetstream().key_value(self.full_name(bucket))

    def _jetstream(self) -> JetStreamContext:
        return self.connection.connected_client().jetstream(timeout=RESPONSE_WITHIN_S)
