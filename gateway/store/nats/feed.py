"""The contents of one bucket, then every change, for the life of one subscription.

An ephemeral push consumer, not `nats-py`'s KV watch. That watch restarts by itself after a gap or a
restart of the server, from the sequence after the last one it received: a bucket that was restored
or made again then stays silent for ever, and a lost consumer is noticed only after minutes. A feed
breaks instead, and the follower of the bucket opens the next one, which delivers everything again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api

from gateway.store.interface import Entry
from gateway.store.nats.connection import (
    RESPONSE_WITHIN_S,
    BucketMissing,
    NatsStoreConnection,
    translate_errors,
)
from runtime.timeouts import silence_limit

HEARTBEAT_S = 0.4
"""The server sends a message or a heartbeat at least this often."""
SILENCE_S = 1.0
"""After this time without a message, the consumer counts as lost."""


def is_deletion(headers: Mapping[str, str] | None) -> bool:
    """Whether a message with ``headers`` marks a deletion.

    By a client, or by the server (expired or purged), which adds a reason.
    """
    return headers is not None and ("KV-Operation" in headers or "Nats-Marker-Reason" in headers)


class NatsFeed:
    """One subscription to one bucket. Implements `gateway.store.interface.Feed`."""

    def __init__(
        self,
        connection: NatsStoreConnection,
        bucket: str,
        prepare: Callable[[], Awaitable[None]],
        on_entry: Callable[[Entry], None],
        on_loaded: Callable[[int], None],
    ) -> None:
        """``bucket`` is the full name of the bucket, which ``prepare`` makes if it is missing."""
        self._connection = connection
        self._prepare = prepare
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._on_entry = on_entry
        self._on_loaded = on_loaded
        self._subscription: Subscription | None = None
        self._client: Client | None = None
        self._consumer = ""
        self._sequence = 0
        self._revision = 0
        self._is_loaded = False
        self._heard_at = 0.0
        self._broken = asyncio.Event()
        self._reason = ""

    async def follow(self) -> str:
        client = await self._connection.client()
        self._connection.on_lost(self.break_off)
        try:
            try:
                await self.open(client)
            except BucketMissing:
                await self._prepare()
                return "the bucket was missing"
            return await self.wait_broken()
        finally:
            self._connection.forget(self.break_off)
            await self.close()

    async def open(self, client: Client) -> None:
        """Subscribe. Raises `StoreUnavailable`, and `BucketMissing` if there is no such bucket."""
        self._client = client
        self._heard_at = asyncio.get_running_loop().time()
        inbox = client.new_inbox()
        self._consumer = inbox.replace(".", "_")
        with translate_errors():
            self._subscription = await client.subscribe(inbox, cb=self._on_message)
            info = await client.jetstream(timeout=RESPONSE_WITHIN_S).add_consumer(
                self._stream,
                api.ConsumerConfig(
                    name=self._consumer,
                    deliver_subject=inbox,
                    deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
                    filter_subject=f"{self._prefix}>",
                    ack_policy=api.AckPolicy.NONE,
                    max_deliver=1,
                    flow_control=True,
                    idle_heartbeat=HEARTBEAT_S,
                    inactive_threshold=30.0,
                    mem_storage=True,
                    num_replicas=1,
                ),
            )
        if not info.num_pending and not (info.delivered and info.delivered.consumer_seq):
            self._loaded()

    async def close(self) -> None:
        """End the feed and delete the consumer at the server."""
        self.break_off("closed")
        client, subscription = self._client, self._subscription
        if client is None or subscription is None or client.is_closed:
            return
        self._subscription = None
        with translate_errors():
            # Also while disconnected: else the client subscribes again after it reconnects.
            await subscription.unsubscribe()
            if client.is_connected:
                await client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}")

    def break_off(self, reason: str = "disconnected") -> None:
        """Break the feed: later messages are ignored."""
        if not self._broken.is_set():
            self._reason = reason
            self._broken.set()

    async def wait_broken(self) -> str:
        """Wait until the feed is broken; return the reason. Detects a silent server."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with silence_limit(self._heard_at + SILENCE_S - loop.time()):
                    await self._broken.wait()
                    return self._reason
            except TimeoutError:
                if loop.time() - self._heard_at >= SILENCE_S:
                    self.break_off("the server is silent")

    async def _on_message(self, message: Msg) -> None:
        if self._broken.is_set():
            return
        self._heard_at = asyncio.get_running_loop().time()
        is_understood = False
        try:
            if message.headers is not None and message.headers.get("Status") == "100":
                await self._control(message, message.headers)
            else:
                self._take(message)
            is_understood = True
        finally:
            if not is_understood:
                self.break_off("a message could not be processed")

    def _take(self, message: Msg) -> None:
        meta = message.metadata
        if meta.sequence.consumer != self._sequence + 1:
            self.break_off("a message is missing")
            return
        self._sequence += 1
        self._revision = meta.sequence.stream
        name = message.subject.removeprefix(self._prefix)
        data = None if is_deletion(message.headers) else message.data
        self._on_entry(Entry(name, data, self._revision))
        if meta.num_pending == 0:
            self._loaded()

    async def _control(self, message: Msg, headers: dict[str, str]) -> None:
        """Handle a heartbeat, which has the last sequence sent, or a flow control request."""
        reply = message.reply or headers.get("Nats-Consumer-Stalled")
        if reply and self._client is not None:
            await self._client.publish(reply)
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._sequence:
            self.break_off("a message is missing")

    def _loaded(self) -> None:
        if not self._is_loaded and not self._broken.is_set():
            self._is_loaded = True
            self._on_loaded(self._revision)
