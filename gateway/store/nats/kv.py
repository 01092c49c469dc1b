"""The store in NATS KV buckets, on file storage except for instances."""

from collections.abc import Callable

import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue

from gateway.domain.model import VersionKey
from gateway.errors import StoreUnavailable
from gateway.store.interface import MARKER_S, ClaimStore, Entry, SharedNumbers
from gateway.store.names import BUCKETS, FUNCTIONS, IN_MEMORY, key_at
from gateway.store.nats.claims import NatsClaims
from gateway.store.nats.connection import (
    RESPONSE_WITHIN_S,
    NatsStoreConnection,
    translate_errors,
)
from gateway.store.nats.feed import NatsFeed, is_deletion
from gateway.store.nats.shared_numbers import NatsSharedNumbers
from gateway.store.records import Store

_NAME_IN_USE = 10058
"""JetStream's code for a stream of this name with another configuration."""
_NO_MESSAGE = 10037
"""JetStream's code for a stream that has no message with this subject."""
_ALL_READ = "all read"


class NatsStore(Store):
    """Implements `gateway.store.records.Store`."""

    def __init__(
        self, connection: NatsStoreConnection, prefix: str = "gateway", replicas: int = 1
    ) -> None:
        """``prefix`` begins the names of the buckets.

        ``replicas`` is the number of servers that keep a bucket; it is set when the bucket is made.
        """
        self.connection = connection
        self._prefix = prefix
        self._replicas = replicas

    async def open(self, timeout_s: float | None = None) -> None:
        await self.connection.open(timeout_s)

    async def close(self) -> None:
        await self.connection.close()

    def full_name(self, bucket: str) -> str:
        """Return the full name in NATS of a bucket of `gateway.store.names`."""
        return f"{self._prefix}_{bucket}"

    async def prepare(self, *buckets: str) -> None:
        for bucket in buckets or BUCKETS:
            with translate_errors():
                try:
                    await self._bucket(bucket)
                except nats.js.errors.BucketNotFoundError:
                    await self._make(bucket)

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int:
        with translate_errors():
            kv = await self._bucket(bucket)
            if revision is None:
                return await kv.put(name, data)
            if revision == 0:
                return await kv.create(name, data)
            return await kv.update(name, data, last=revision)

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None:
        with translate_errors():
            try:
                entry = await (await self._bucket(bucket)).get(name)
            except nats.js.errors.KeyNotFoundError:
                return None
        return entry.value or b"", entry.revision or 0

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int:
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        with translate_errors():
            ack = await self._jetstream().publish(
                f"$KV.{self.full_name(bucket)}.{name}", headers=headers, msg_ttl=MARKER_S
            )
        return ack.seq

    async def entries(self, bucket: str) -> list[Entry]:
        entries: list[Entry] = []
        feed = self.feed(bucket, entries.append, lambda _: feed.break_off(_ALL_READ))
        try:
            await feed.open(self.connection.connected_client())
            reason = await feed.wait_broken()
            if reason != _ALL_READ:
                raise StoreUnavailable(cause=reason)
        finally:
            await feed.close()
        return [entry for entry in entries if entry.data is not None]

    async def latest_revision(self, bucket: str, kind: str) -> int:
        latest = await self._latest(bucket, f"{kind}.>")
        return 0 if latest is None else latest.revision

    async def deleted_version(self, version_id: str) -> VersionKey | None:
        entry = await self._latest(FUNCTIONS, f"version.*.{version_id}")
        if entry is None or entry.data is not None:
            return None
        key = key_at(FUNCTIONS, entry.name)
        return key if isinstance(key, VersionKey) else None

    def feed(
        self, bucket: str, on_entry: Callable[[Entry], None], on_loaded: Callable[[int], None]
    ) -> NatsFeed:
        return NatsFeed(
            self.connection,
            self.full_name(bucket),
            lambda: self.prepare(bucket),
            on_entry,
            on_loaded,
        )

    def shared_numbers(self, max_age_s: float) -> SharedNumbers:
        return NatsSharedNumbers(self.connection, self._prefix, self._replicas, max_age_s)

    def claims(self, max_age_s: float, account_limit: int) -> ClaimStore:
        return NatsClaims(self.connection, self._prefix, self._replicas, max_age_s, account_limit)

    async def _latest(self, bucket: str, pattern: str) -> Entry | None:
        """Return the last write or deletion of a name that matches ``pattern``.

        ``*`` matches one token, a final ``>`` all that follow.
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
