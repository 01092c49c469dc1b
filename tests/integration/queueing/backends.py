"""The backends that `test_conformance` holds to `queueing.interface`, each beside a real broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import NamedTuple, Protocol

from queueing.interface import Bus, FunctionQueue, PullConsumer, QueueAdmin
from queueing.nats.admin import JetStreamAdmin
from queueing.nats.bus import NatsBus
from queueing.nats.consumer import PullConsumer as JetStreamConsumer
from queueing.nats.gateway import stream_settings
from queueing.nats.polls import NatsPolls
from queueing.nats.queue import JetStreamQueue
from queueing.own_requests import queue_limits
from queueing.redis.addresses import parse_server
from queueing.redis.admin import RedisAdmin
from queueing.redis.bus import RedisBus
from queueing.redis.connection import RedisConnection
from queueing.redis.consumer import PushConsumer
from queueing.redis.link import RedisOptions
from queueing.redis.polls import RedisPolls
from queueing.redis.queue import RedisQueue
from queueing.redis.scripts import GATEWAY, WORKER
from queueing.settings import QueueSettings
from tests.support.nats_server import NatsServer
from tests.support.queue_harness import OPTIONS, REGION, Worker, connected
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE_S


class Polls(Protocol):
    """What sends further polls to workers."""

    async def poll(
        self, version_id: str, request_id: str, envelope: bytes, timeout_s: float
    ) -> None: ...


class Gateway(NamedTuple):
    """One gateway process's side, started."""

    queue: FunctionQueue
    admin: QueueAdmin
    bus: Bus
    polls: Polls


class Backend(Protocol):
    """What a backend must offer to be tested."""

    def gateway(
        self, process: int = 1, settings: QueueSettings | None = None
    ) -> AbstractAsyncContextManager[Gateway]:
        """Run a gateway's side for the length of the block, connected."""

    def worker(self, version_id: str, slots: int = 1) -> AbstractAsyncContextManager[Worker]:
        """Run a worker for the length of the block, connected, that wants ``slots`` requests."""

    def is_stored(self, gateway: Gateway, request_id: str) -> bool:
        """Whether the broker has acknowledged the publish."""

    async def subscribed(self, gateway: Gateway) -> None:
        """Return when the broker knows the subscriptions of the gateway's bus."""

    async def stop(self) -> None:
        """Stop the broker; what it has stored in memory may be lost."""

    async def start(self) -> None:
        """Start it again at the same address."""


class NatsBackend:
    """NATS JetStream."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server

    @asynccontextmanager
    async def gateway(
        self, process: int = 1, settings: QueueSettings | None = None
    ) -> AsyncIterator[Gateway]:
        settings = settings or QueueSettings(lease_s=1.0)
        streams = stream_settings(settings)
        # A position waits for the other processes however slow the machine is.
        limits = replace(queue_limits(settings), peer_wait_s=PATIENCE_S)
        async with connected(self._server.url, OPTIONS) as connection:
            queue = JetStreamQueue(
                connection, region=REGION, process=process, streams=streams, limits=limits
            )
            await queue.start()
            try:
                admin = JetStreamAdmin(connection, [REGION], streams)
                yield Gateway(queue, admin, NatsBus(connection), NatsPolls(connection))
            finally:
                await queue.close()

    @asynccontextmanager
    async def worker(self, version_id: str, slots: int = 1) -> AsyncIterator[Worker]:
        async with connected(self._server.url, OPTIONS) as connection:
            work = Worker()
            consumer: PullConsumer = JetStreamConsumer(
                connection,
                region=REGION,
                version_id=version_id,
                on_lease=work.leased,
                on_cancel=work.cancel,
            )
            work.pull = consumer
            consumer.start()
            consumer.want(slots)
            try:
                yield work
            finally:
                await consumer.close()

    def is_stored(self, gateway: Gateway, request_id: str) -> bool:
        queue = gateway.queue
        assert isinstance(queue, JetStreamQueue)
        return bool(queue.sequence_of(request_id))

    async def subscribed(self, gateway: Gateway) -> None:
        await gateway.admin.version_ids()

    async def stop(self) -> None:
        await self._server.kill()

    async def start(self) -> None:
        await self._server.start()


class RedisBackend:
    """Redis or Valkey."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    @asynccontextmanager
    async def _connected(self, scripts: tuple[str, ...]) -> AsyncIterator[RedisConnection]:
        connection = RedisConnection(
            RedisOptions((parse_server(self._server.url),), scripts=scripts)
        )
        connection.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await connection.wait_connected()
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def gateway(
        self,
        process: int = 1,
        settings: QueueSettings | None = None,
    ) -> AsyncIterator[Gateway]:
        settings = settings or QueueSettings(lease_s=1.0)
        async with self._connected(GATEWAY) as connection:
            queue = RedisQueue(
                connection, region=REGION, limits=queue_limits(settings), lease_s=settings.lease_s
            )
            bus = RedisBus(connection)
            await queue.start()
            bus.start()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await bus.wait_ready()
                admin = RedisAdmin(connection, REGION, settings.lease_s)
                yield Gateway(queue, admin, bus, RedisPolls(connection, REGION))
            finally:
                await queue.close()
                await bus.close()

    @asynccontextmanager
    async def worker(self, version_id: str, slots: int = 1) -> AsyncIterator[Worker]:
        async with self._connected(WORKER) as connection:
            work = Worker()
            consumer: PullConsumer = PushConsumer(
                connection,
                region=REGION,
                version_id=version_id,
                on_lease=work.leased,
                on_cancel=work.cancel,
            )
            work.pull = consumer
            consumer.start()
            consumer.want(slots)
            try:
                yield work
            finally:
                await consumer.close()

    def is_stored(self, gateway: Gateway, request_id: str) -> bool:
        queue = gateway.queue
        assert isinstance(queue, RedisQueue)
        return bool(queue.sequence_of(request_id))

    async def subscribed(self, gateway: Gateway) -> None:
        assert isinstance(gateway.bus, RedisBus)
        await gateway.bus.flush()

    async def stop(self) -> None:
        await self._server.kill()

    async def start(self) -> None:
        await self._server.start()
