"""`python -m loadtests.redis_queue`: what the queue costs a Redis or Valkey server, as one table.

One server, one gateway process's side of the queue, and workers. Queues of several lengths stand
beside each other, and each round publishes, leases and acknowledges the same number of requests in
each of them; CPU times are the server's own (INFO). Exit code 0: every bar held.
"""

import argparse
import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import uvloop
from redis.asyncio import Redis

from loadtests.children import Children
from loadtests.stats import Spread, quantile, spread
from queueing.interface import (
    EmbeddedBroker,
    GatewayBroker,
    Lease,
    PullConsumer,
    QueueError,
    WorkerBroker,
)
from queueing.open import embedded_broker, open_gateway_broker, open_worker_broker
from queueing.settings import GatewayBrokerSettings, WorkerBrokerSettings
from runtime.ids import new_uuid
from runtime.metrics import MetricRegistry
from runtime.settings import load
from wire.ids import request_id

LENGTHS = (0, 1_000, 10_000, 100_000)
"""Requests that wait in a queue when it is measured."""
MOVED = 5_000
"""Requests of one round, in each queue: published, then leased, then acknowledged."""
FLAT = 0.10
MAX_POSITION_MS = 1.0
MAX_EXTRA_BYTES = 1.2 * 1024
MAX_IDLE_CPU = 0.01
"""Of a core; a PING of each worker every few seconds is in it."""
_PROCESS = 1
_ENVELOPE = os.urandom(300)
_AT_ONCE = 1_000
_SLOTS = 128
_CONNECTING = 100
_START_S = 10.0
_PATIENCE_S = 60.0
_POLL_S = 0.005
_SETTLE_S = 1.5
_KINDS = ("publish", "lease", "ack")


class Bar(NamedTuple):
    title: str
    measured: str
    limit: str
    is_held: bool


class Failures:
    """Callbacks of all requests: none may be called."""

    def __init__(self) -> None:
        self.first = ""

    def publish_failed(self, error: QueueError) -> None:
        self.first = self.first or f"a publish failed: {type(error).__name__}: {error}"

    def undeliverable(self) -> None:
        self.first = self.first or "a request was undeliverable"


class Server:
    """What the server says of itself."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    async def cpu_s(self) -> float:
        """Return the CPU time of all its threads in seconds, to the microsecond."""
        found = await self._client.info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    async def memory_bytes(self) -> int:
        return int((await self._client.info("memory"))["used_memory"])


class Line:
    """One queue, with a worker that takes nothing until it is told to."""

    def __init__(self, gateway: GatewayBroker, version_id: str) -> None:
        self.version_id = version_id
        self.ids: list[str] = []
        self.leases: list[Lease] = []
        self.consumer: PullConsumer
        self._gateway = gateway
        self._failures = Failures()

    async def publish(self, count: int) -> None:
        """Publish so many requests and return when the server has them."""
        expected = await self._stored() + count
        while count:
            part = min(count, _AT_ONCE)
            for _ in range(part):
                self.ids.append(request_id(os.urandom(16), _PROCESS))
                self._gateway.queue.publish(
                    self.version_id, self.ids[-1], _ENVELOPE, self._failures, b""
                )
            count -= part
            await self._until(self._stored, expected - count)

    async def lease(self, count: int) -> None:
        """Take so many requests, as many at a time as the worker has slots."""

        async def leased() -> int:
            return len(self.leases)

        for first in range(0, count, _SLOTS):
            end = min(first + _SLOTS, count)
            self.consumer.want(end - first)
            await self._until(leased, end)
        self.consumer.want(0)

    async def acknowledge(self) -> None:
        """End all leases and return when the server has removed their requests."""
        expected = await self._stored() - len(self.leases)
        for lease in self.leases:
            self._gateway.queue.answered(lease.request_id)
            lease.ack()
        self.leases.clear()
        await self._until(self._stored, expected)

    async def _stored(self) -> int:
        """Return how many requests the queue has; a worker may hold a few more than it wants."""
        found = await self._gateway.admin.load(self.version_id)
        return found.waiting + found.leased

    async def _until(self, read: Callable[[], Awaitable[int]], wanted: int) -> None:
        end = time.monotonic() + _PATIENCE_S
        while (found := await read()) != wanted:
            if self._failures.first:
                raise RuntimeError(self._failures.first)
            if time.monotonic() > end:
                raise RuntimeError(f"{found} instead of {wanted} after {_PATIENCE_S:.0f} s")
            await asyncio.sleep(_POLL_S)


@contextmanager
def _running(children: Children, folder: Path) -> Iterator[tuple[EmbeddedBroker, str]]:
    """Run the server as `gateway dev` does; yield it with its URL."""
    broker = embedded_broker(folder, "127.0.0.1", 0, "redis")
    child = children.start(broker.name, broker.argv)
    child.wait_until(lambda: child.has_logged(broker.ready_line), _START_S)
    try:
        yield broker, broker.url("")
    finally:
        children.stop([child])


class Bench:
    """The connections of one run."""

    def __init__(self, broker: EmbeddedBroker, url: str) -> None:
        environ = broker.gateway_environment(url)
        environ["GATEWAY_QUEUE__MAX_MESSAGES"] = str(2 * max(LENGTHS))
        self._settings = load(GatewayBrokerSettings, None, "GATEWAY", environ=environ)
        names = ("QUEUE__BACKEND", "REDIS__URLS", "REDIS__USER", "REDIS__PASSWORD")
        own = {f"WORKER_{name}": environ[f"GATEWAY_{name}"] for name in names}
        self._worker_settings = load(WorkerBrokerSettings, None, "WORKER", environ=own)
        redis = self._settings.redis
        password = redis.password.get_secret_value() if redis.password else None
        # Several replies of INFO in turn, and nothing else: the client's defaults do.
        self._client = Redis.from_url(url, username=redis.user or None, password=password)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Server]:
        async with self._client as client:
            # A rewrite of the append-only file would be in somebody's figures.
            await client.config_set("auto-aof-rewrite-percentage", 0)
            yield Server(client)

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[GatewayBroker]:
        broker = open_gateway_broker(self._settings, _PROCESS, MetricRegistry(), ())
        broker.start()
        try:
            async with asyncio.timeout(_START_S):
                await broker.wait_connected()
            await broker.queue.start()
            yield broker
            await broker.queue.close()
        finally:
            await broker.close()

    def worker(
        self, version_id: str, on_lease: Callable[[Lease], None]
    ) -> tuple[WorkerBroker, PullConsumer]:
        """Return a started worker that wants nothing."""
        broker = open_worker_broker(
            self._worker_settings, version_id, new_uuid(), MetricRegistry(), lambda: None
        )
        broker.start()
        region = self._worker_settings.queue.region
        consumer = broker.consumer(region, on_lease, lambda _: None)
        consumer.start()
        return broker, consumer


async def _bound(consumers: Sequence[PullConsumer]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not all(consumer.is_bound() for consumer in consumers):
        if time.monotonic() > end:
            raise RuntimeError("workers found no queue")
        await asyncio.sleep(_POLL_S)


async def _costs(bench: Bench, server: Server, rounds: int) -> list[Bar]:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(bench.gateway())
        lines = {}
        for length in LENGTHS:
            line = lines[length] = Line(gateway, new_uuid())
            await gateway.admin.ensure(line.version_id)
            broker, line.consumer = bench.worker(line.version_id, line.leases.append)
            stack.push_async_callback(broker.close)
            stack.push_async_callback(line.consumer.close)
        await _bound([line.consumer for line in lines.values()])
        for length in LENGTHS[:-1]:
            await lines[length].publish(length)
        memory = await _memory(server, lines[LENGTHS[-1]], LENGTHS[-1])
        position = await _position(gateway, lines[LENGTHS[-1]], LENGTHS[-1] // 2)
        measured: dict[tuple[int, str], list[float]] = {}
        for number in range(rounds + 1):
            for at in range(len(LENGTHS)):
                length = LENGTHS[(at + number) % len(LENGTHS)]
                cost = await _round(server, lines[length])
                if number:  # the first round warms up
                    for kind, us in cost.items():
                        measured.setdefault((length, kind), []).append(us)
        spreads = {key: spread(values) for key, values in measured.items()}
        _show(spreads)
        return [*(_flat(kind, spreads) for kind in _KINDS), memory, position]


async def _round(server: Server, line: Line) -> dict[str, float]:
    """Return the server's CPU per request for each kind of call, in µs."""
    steps = (line.publish(MOVED), line.lease(MOVED), line.acknowledge())
    cost = {}
    before = await server.cpu_s()
    for kind, step in zip(_KINDS, steps, strict=True):
        await step
        after = await server.cpu_s()
        cost[kind] = (after - before) / MOVED * 1e6
        before = after
    return cost


async def _memory(server: Server, line: Line, count: int) -> Bar:
    before = await server.memory_bytes()
    await line.publish(count)
    await asyncio.sleep(_SETTLE_S)
    extra = (await server.memory_bytes() - before) / count - len(_ENVELOPE)
    return Bar(
        f"memory of a waiting request beyond its {len(_ENVELOPE)} bytes",
        f"{extra:,.0f} bytes",
        f"{MAX_EXTRA_BYTES:,.0f} bytes",
        extra <= MAX_EXTRA_BYTES,
    )


async def _position(gateway: GatewayBroker, line: Line, wanted: int) -> Bar:
    times_ms = []
    for _ in range(200):
        began = time.perf_counter()
        found = await gateway.queue.position(line.version_id, line.ids[wanted - 1])
        times_ms.append((time.perf_counter() - began) * 1e3)
        if found != wanted:
            raise RuntimeError(f"position {found} instead of {wanted}")
    median = quantile(sorted(times_ms), 0.5)
    return Bar(
        f"position of the {wanted:,}th, p50",
        f"{median:.2f} ms",
        f"{MAX_POSITION_MS:g} ms",
        median <= MAX_POSITION_MS,
    )


def _show(spreads: dict[tuple[int, str], Spread]) -> None:
    _print("Server's CPU, µs per request: median (lowest..highest)\n")
    _print(f"{'waiting':>10}" + "".join(f"{kind:>22}" for kind in _KINDS))
    for length in LENGTHS:
        cells = [spreads[length, kind] for kind in _KINDS]
        texts = [f"{each.median:.1f} ({each.low:.1f}..{each.high:.1f})" for each in cells]
        _print(f"{length:>10,}" + "".join(f"{text:>22}" for text in texts))


def _flat(kind: str, spreads: dict[tuple[int, str], Spread]) -> Bar:
    # The lowest rounds: what else runs on the machine only adds.
    lowest = [spreads[length, kind].low for length in LENGTHS]
    middle = (max(lowest) + min(lowest)) / 2
    off = max(lowest) / middle - 1
    title = f"CPU of {kind}, from {LENGTHS[0]:,} to {LENGTHS[-1]:,} waiting"
    return Bar(title, f"±{off * 100:.1f} %", f"±{FLAT * 100:.0f} %", off <= FLAT)


async def _idle(bench: Bench, server: Server, workers: int, duration_s: float) -> Bar:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(bench.gateway())
        version_id = new_uuid()
        await gateway.admin.ensure(version_id)
        without = await _load_of(server, duration_s)
        consumers: list[PullConsumer] = []
        for first in range(0, workers, _CONNECTING):
            for _ in range(min(_CONNECTING, workers - first)):
                broker, consumer = bench.worker(version_id, lambda _: None)
                stack.push_async_callback(broker.close)
                consumer.want(1)
                consumers.append(consumer)
            await _bound(consumers)
        await asyncio.sleep(_SETTLE_S)
        share = await _load_of(server, duration_s) - without
    return Bar(
        f"CPU of {workers:,} idle workers",
        f"{share * 100:.2f} % of a core",
        f"{MAX_IDLE_CPU * 100:g} %",
        share <= MAX_IDLE_CPU,
    )


async def _load_of(server: Server, duration_s: float) -> float:
    """Return the part of a core that the server uses."""
    began, before = time.monotonic(), await server.cpu_s()
    await asyncio.sleep(duration_s)
    return (await server.cpu_s() - before) / (time.monotonic() - began)


def _print(text: str) -> None:
    print(text, flush=True)


async def _run(broker: EmbeddedBroker, url: str, options: argparse.Namespace) -> bool:
    bench = Bench(broker, url)
    async with bench.server() as server:
        bars = await _costs(bench, server, options.rounds)
        bars.append(await _idle(bench, server, options.workers, options.idle_s))
    _print("\nBars")
    for bar in bars:
        outcome = "PASS" if bar.is_held else "FAIL"
        _print(f"  {bar.title:<55} <= {bar.limit:<12} {bar.measured:>18}  {outcome}")
    return all(bar.is_held for bar in bars)


def main(words: Sequence[str] | None = None) -> int:
    parser: Any = argparse.ArgumentParser(
        prog="python -m loadtests.redis_queue", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=7, help="of each queue (7)")
    parser.add_argument("--workers", type=int, default=2_000, help="idle workers (2000)")
    parser.add_argument("--idle-s", type=float, default=10.0, help="time without calls (10 s)")
    parser.add_argument("--logs", type=Path, default=Path("build/redis-queue-logs"))
    options = parser.parse_args(words)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with (
        TemporaryDirectory(prefix="redis-queue-") as folder,
        Children(options.logs) as children,
        _running(children, Path(folder)) as (broker, url),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        is_good = runner.run(_run(broker, url, options))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
