"""Both sides of a queue on Redis, and calls whose history tells what became of each."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from queueing.interface import Lease, RunDecision
from queueing.own_requests import QueueLimits
from queueing.redis.addresses import parse_server
from queueing.redis.connection import RedisConnection
from queueing.redis.consumer import PushConsumer
from queueing.redis.errors import RedisError
from queueing.redis.keys import QueueKeys
from queueing.redis.link import RedisOptions
from queueing.redis.queue import RedisQueue
from queueing.redis.scripts import GATEWAY, WORKER
from tests.support.queue_harness import REGION, Client, Worker, new_request
from tests.support.waiting import PATIENCE_S, until

PATIENT = QueueLimits(look_interval_s=0.2)
LEASE_S = 300.0
"""A request that is delivered again was given back: its lease has not ended."""


def options(urls: str | Sequence[str], **more: Any) -> RedisOptions:
    """Return options of connections to the servers."""
    found = (urls,) if isinstance(urls, str) else urls
    return RedisOptions(tuple(map(parse_server, found)), **more)


def keys(version_id: str) -> QueueKeys:
    return QueueKeys.of(REGION, version_id)


class GatewayQueue(RedisQueue):
    """A queue that shows its ``connection``."""

    def __init__(self, connection: RedisConnection, limits: QueueLimits, lease_s: float) -> None:
        super().__init__(connection, region=REGION, lease_s=lease_s, limits=limits)
        self.connection = connection


class RedisWorker(Worker):
    """A worker that shows its connection."""

    redis: RedisConnection


@asynccontextmanager
async def connected(target: RedisOptions) -> AsyncIterator[RedisConnection]:
    """Run a connection while the block runs; it is up when the block begins."""
    connection = RedisConnection(target)
    connection.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await connection.wait_connected()
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def gateway(
    target: RedisOptions, limits: QueueLimits = PATIENT, lease_s: float = LEASE_S
) -> AsyncIterator[GatewayQueue]:
    """Run a gateway process's side while the block runs."""
    async with connected(replace(target, scripts=GATEWAY)) as connection:
        queue = GatewayQueue(connection, limits, lease_s)
        await queue.start()
        try:
            yield queue
        finally:
            await queue.close()


@asynccontextmanager
async def worker(
    target: RedisOptions,
    version_id: str,
    slots: int = 1,
    serve: Callable[[RedisWorker, Lease], None] = RedisWorker.leased,
    boot_clock: Callable[[], float] | None = None,
) -> AsyncIterator[RedisWorker]:
    """Run a worker while the block runs; ``serve`` is called with it and each lease."""
    async with connected(replace(target, scripts=WORKER)) as connection:
        work = RedisWorker()
        work.redis = connection
        clock = {"boot_clock": boot_clock} if boot_clock is not None else {}
        work.pull = PushConsumer(
            connection,
            region=REGION,
            version_id=version_id,
            on_lease=partial(serve, work),
            on_cancel=work.cancel,
            **clock,
        )
        work.pull.start()
        work.pull.want(slots)
        try:
            yield work
        finally:
            await work.pull.close()


async def publish(
    queue: RedisQueue, version_id: str, envelope: bytes = b"envelope"
) -> tuple[str, Client]:
    """Publish one request and wait until it is stored or has failed."""
    request_id, client = new_request(), Client()
    queue.publish(version_id, request_id, envelope, client, b"")
    await until(lambda: queue.sequence_of(request_id) or client.entries)
    return request_id, client


async def publish_many(queue: RedisQueue, version_id: str, count: int) -> list[str]:
    """Publish requests in order, and wait until all are stored."""
    published = [(new_request(), Client()) for _ in range(count)]
    for request_id, client in published:
        queue.publish(version_id, request_id, b"envelope", client, b"")
    for request_id, client in published:
        await until(lambda i=request_id, c=client: queue.sequence_of(i) or c.entries)  # type: ignore[misc]
        assert client.entries == []
    return [request_id for request_id, _ in published]


async def registered(queue: GatewayQueue, version_id: str) -> int:
    """Return how many requests the workers of a version have registered for, as the server says."""
    found = keys(version_id)
    link = queue.connection.link(found.slot)
    try:
        return await link.call(b"LLEN", found.key + b":i") if link is not None else -1  # type: ignore[no-any-return]
    except RedisError:
        return -1


class Calls:
    """Calls of one version's function: published, run by workers for moments, answered.

    ``run`` is how each worker of these calls serves a lease, as the worker agent does: it asks
    about all that may have been run before. ``wrong`` names what must not be: a run that begins
    after the answer. ``runs`` counts those that began.
    """

    def __init__(self, queue: GatewayQueue, version_id: str, run_s: float = 0.005) -> None:
        self._queue = queue
        self._version_id = version_id
        self._run_s = run_s
        self.open: dict[str, Client] = {}
        self.answered: set[str] = set()
        self.failed: dict[str, str] = {}
        self.runs: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._running: dict[RedisWorker, dict[str, Lease]] = {}
        self._slots: dict[RedisWorker, int] = {}

    def call(self, count: int = 1) -> None:
        """Publish requests."""
        for _ in range(count):
            request_id, client = new_request(), Client()
            self.open[request_id] = client
            self._queue.publish(self._version_id, request_id, b"envelope", client, b"")

    @asynccontextmanager
    async def worker(self, target: RedisOptions, slots: int = 4) -> AsyncIterator[RedisWorker]:
        """Run a worker that serves these calls while the block runs."""
        async with worker(target, self._version_id, 0, self.run) as work:
            self._slots[work] = slots
            self._running[work] = {}
            work.pull.watch(
                lambda: None,
                lambda: self._tell(work),
                lambda: None,
                lambda: self._renew(work),
                lambda: None,
            )
            work.pull.want(slots)
            yield work

    def run(self, work: RedisWorker, lease: Lease) -> None:
        """Run a request that was leased, if it may be."""
        request_id = lease.request_id
        work.leased(lease)
        if lease.deliveries > 1 or not lease.is_first_known():
            decision = self._queue.may_run(request_id, lease.deliveries)
            if decision is not RunDecision.RUN:
                asyncio.get_running_loop().call_soon(self._refuse, work, lease, decision)
                return
        if request_id in self.answered:
            self.wrong.append(f"{request_id} runs after its answer, delivery {lease.deliveries}")
        self.runs[request_id] += 1
        self._running[work][request_id] = lease
        self._queue.leased(request_id)
        asyncio.get_running_loop().call_later(self._run_s, self._answer, work, lease)

    def _refuse(self, work: RedisWorker, lease: Lease, decision: RunDecision) -> None:
        if decision is RunDecision.NEVER:
            lease.ack()
        else:
            lease.nak(0.05)
        self._want(work)

    def _answer(self, work: RedisWorker, lease: Lease) -> None:
        if lease.request_id in self.open and lease.request_id not in self.answered:
            self.answered.add(lease.request_id)
            self._queue.answered(lease.request_id)
        self._running[work].pop(lease.request_id, None)
        if not lease.is_over():
            lease.ack()
        self._want(work)

    def _want(self, work: RedisWorker) -> None:
        work.pull.want(self._slots[work] - len(self._running[work]))

    def _tell(self, work: RedisWorker) -> None:
        for request_id in self._running[work]:
            self._queue.started(request_id)

    def _renew(self, work: RedisWorker) -> None:
        for lease in self._running[work].values():
            lease.in_progress()

    def undecided(self) -> list[str]:
        """Return the calls that have no end yet."""
        left = []
        for request_id, client in self.open.items():
            if client.entries and request_id not in self.answered:
                self.failed[request_id] = f"{client.names[0]} {client.error}"
            elif request_id not in self.answered:
                left.append(f"{self._queue.request(request_id)}")
        return left

    async def decided(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until every call has its end; none ran after its answer."""
        await until(
            self.undecided,
            lambda left: not left,
            what="the end of every call",
            timeout_s=timeout_s,
        )
        assert self.wrong == []

    async def idle(self) -> None:
        """Wait until every slot of every worker is free again, and registered at the server.

        A worker may be registered for a few more, from when requests waited for its slots.
        """
        slots = sum(self._slots.values())
        await until(
            lambda: registered(self._queue, self._version_id),
            lambda count: count >= slots,
            what=f"{slots} registrations",
        )
