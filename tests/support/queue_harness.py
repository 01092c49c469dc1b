"""The gateway side and the worker side of a queue on real connections; both record events."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from os import urandom
from typing import Any

from queueing.interface import FunctionQueue, Lease, PullConsumer, QueueError
from queueing.nats import consumer as nats_consumer
from queueing.nats.connection import NatsConnection
from queueing.nats.consumer import PullOptions
from queueing.nats.jetstream import JetStream, StreamSettings
from queueing.nats.login import ConnectionOptions
from queueing.nats.queue import JetStreamQueue
from queueing.own_requests import QueueLimits
from runtime.ids import new_uuid
from tests.support.waiting import PATIENCE_S, Signal, until
from wire.ids import request_id
from wire.subjects import stream_name

REGION = "test"
STREAMS = StreamSettings(ack_wait_s=1.0)
OPTIONS = ConnectionOptions(reconnect_min_s=0.05, lame_duck_jitter_s=0.0)


def new_version() -> str:
    return new_uuid()


def new_request(process: int = 1) -> str:
    return request_id(urandom(16), process)


class Diary:
    """A list of events that a test can wait for."""

    def __init__(self) -> None:
        self.entries: list[tuple[object, ...]] = []
        self._grown = Signal()

    def write(self, *entry: object) -> None:
        self.entries.append(entry)
        self._grown.notify()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` is true; it is evaluated again after every entry."""
        await until(
            lambda: self.entries, lambda _: condition(), what=condition, changed=self._grown
        )


class GatewayQueue(JetStreamQueue):
    """A queue that shows its ``connection``."""

    def __init__(self, connection: NatsConnection, **arguments: Any) -> None:
        super().__init__(connection, **arguments)
        self.connection = connection


class Client(Diary):
    """Callbacks of one request; `decided` records when the broker has stored it."""

    def __init__(self) -> None:
        super().__init__()
        self.sequence = 0
        self.error: QueueError | None = None

    def publish_failed(self, error: QueueError) -> None:
        self.error = error
        self.write("publish_failed", type(error).__name__)

    def undeliverable(self) -> None:
        self.write("undeliverable")

    @property
    def names(self) -> list[object]:
        return [entry[0] for entry in self.entries]

    async def reaches(self, name: str) -> None:
        await self.until(lambda: name in self.names)


class Worker(Diary):
    """A worker that keeps its leases until the test ends them."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: NatsConnection
        self.leases: list[Lease] = []
        self.cancelled: list[str] = []
        self.pull: PullConsumer

    def leased(self, lease: Lease) -> None:
        self.leases.append(lease)
        self.write("leased", lease.request_id)

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)
        self.write("cancelled", request_id)

    async def has(self, count: int) -> list[Lease]:
        await self.until(lambda: len(self.leases) >= count)
        return self.leases


@asynccontextmanager
async def connected(
    url: str, options: ConnectionOptions = OPTIONS
) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(replace(options, servers=tuple(url.split(","))))
    connection.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await connection.wait_connected()
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def gateway(
    url: str,
    *,
    process: int = 1,
    streams: StreamSettings = STREAMS,
    limits: QueueLimits | None = None,
    options: ConnectionOptions = OPTIONS,
) -> AsyncIterator[GatewayQueue]:
    async with connected(url, options) as connection:
        queue = GatewayQueue(
            connection, region=REGION, process=process, streams=streams, limits=limits
        )
        await queue.start()
        try:
            yield queue
        finally:
            await queue.close()


@asynccontextmanager
async def worker(
    url: str,
    version_id: str,
    slots: int = 1,
    options: ConnectionOptions = OPTIONS,
    pulls: PullOptions | None = None,
    serve: Callable[[Worker, Lease], None] = Worker.leased,
    region: str = REGION,
) -> AsyncIterator[Worker]:
    """Run a worker; ``serve`` is called with it and each lease."""
    async with connected(url, options) as connection:
        work = Worker()
        work.connection = connection
        work.pull = nats_consumer.PullConsumer(
            connection,
            region=region,
            version_id=version_id,
            on_lease=partial(serve, work),
            on_cancel=work.cancel,
            options=pulls,
        )
        work.pull.start()
        work.pull.want(slots)
        try:
            yield work
        finally:
            await work.pull.close()


async def decided(queue: JetStreamQueue, request_id: str, client: Client) -> None:
    """Wait until the broker has stored a request, or its publish has failed.

    Not for a request that is answered or withdrawn meanwhile: the queue then forgets it.
    """
    await until(lambda: queue.sequence_of(request_id) or client.entries)
    if sequence := queue.sequence_of(request_id):
        client.sequence = sequence
        client.write("published")


async def publish(
    queue: JetStreamQueue, version_id: str, envelope: bytes = b"envelope", process: int = 1
) -> tuple[str, Client]:
    """Publish one request and wait until it is stored or refused."""
    request, client = new_request(process), Client()
    queue.publish(version_id, request, envelope, client, b"")
    await decided(queue, request, client)
    return request, client


async def publish_many(
    queue: JetStreamQueue, version_id: str, count: int, process: int = 1
) -> list[str]:
    """Publish ``count`` requests in order and wait until all are acknowledged."""
    requests = [new_request(process) for _ in range(count)]
    clients = [Client() for _ in requests]
    for request, client in zip(requests, clients, strict=True):
        queue.publish(version_id, request, b"envelope", client, b"")
    for request, client in zip(requests, clients, strict=True):
        await decided(queue, request, client)
        assert client.names == ["published"], client.error
    return requests


def counted(queue: JetStreamQueue, version_id: str) -> dict[str, float]:
    """Return the number of completed publishes to a version's queue, by status."""
    of_version = f'stream="{stream_name(REGION, version_id)}"'
    series = [line for line in queue.publishes.lines() if of_version in line]
    return {
        line.partition('status="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in series
    }


async def messages_in(connection: NatsConnection, version_id: str, region: str = REGION) -> int:
    """Return how many requests the broker holds, leased ones included."""
    answer = await JetStream(connection).call(f"STREAM.INFO.{stream_name(region, version_id)}", {})
    count = answer["state"]["messages"]
    assert isinstance(count, int)
    return count


async def until_depth(queue: FunctionQueue, version_id: str, depth: int) -> None:
    """Wait until ``depth`` requests are queued.

    The broker's consumer counts a request a little after it has acknowledged the publish.
    """
    await until(
        lambda: queue.depth(version_id), lambda found: found == depth, what=f"a depth of {depth}"
    )
