"""The agent's inside on real sockets: leases by hand, inference server and gateway on loopback."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from http1.client.pool import Pool
from runtime.lifecycle import Ticker
from runtime.metrics import Registry
from runtime.tasks import cancel_all
from tests.support.fake_gateway import Expected, FakeGateway, running_fake_gateway
from worker_agent.app.metrics import Metrics
from worker_agent.attach.gateways import AttachLimits, GatewayPool, is_target
from worker_agent.inference.server import InferenceServer
from worker_agent.job.request import Identity
from worker_agent.runner import JobRunner
from worker_agent.slots import Slots

PATIENCE_S = 10.0 * float(os.environ.get("TEST_PATIENCE", "1"))

Serve = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection of a hand-written inference server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """Read one request head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> None:
        """Wait until the other side closes."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


class RawServer:
    """Runs one coroutine per connection; ``connections`` counts them."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._serve(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class HandLease:
    """A lease that writes down what becomes of it."""

    def __init__(self, envelope: bytes, deliveries: int = 1) -> None:
        self.envelope = envelope
        self.deliveries = deliveries
        self.calls: list[str] = []
        self.ended = asyncio.Event()

    def in_progress(self) -> None:
        self.calls.append("in_progress")

    def ack(self) -> None:
        self._end("ack")

    def nak(self) -> None:
        self._end("nak")

    def term(self) -> None:
        self._end("term")

    def _end(self, call: str) -> None:
        assert not self.ended.is_set(), f"{call} after {self.calls}"
        self.calls.append(call)
        self.ended.set()


class Wanted:
    """A queue that only remembers how many requests are wanted."""

    def __init__(self) -> None:
        self.free = -1

    def want(self, free: int) -> None:
        self.free = free


class Bench:
    """One agent's inside."""

    def __init__(self, server: RawServer, gateway: FakeGateway, concurrency: int) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.gateway = gateway
        self.queue = Wanted()
        self.slots = Slots(concurrency, 256)
        self.metrics = Metrics(Registry(), loop.time)
        identity = Identity(
            f"127.0.0.1:{server.port}",
            [("NVCF-FUNCTION-ID", "the-function"), ("NVCF-REGION", "zone-1")],
            asset_dir="/assets",
            large_output_dir="/output",
        )
        self.intake = JobRunner(
            self.slots, identity, self.metrics, is_attachable=is_target, on_busy=lambda: None
        )
        self.pool = Pool(
            lambda factory: loop.create_connection(factory, "127.0.0.1", server.port),
            idle_s=4.0,
            max_idle=concurrency,
            connect_timeout_s=5.0,
        )
        self.gateways = GatewayPool(AttachLimits(idle_s=30.0, max_idle=256, connect_timeout_s=5.0))
        self.ticker = Ticker(0.5, self._sweep)

    def start(self) -> None:
        self.intake.open(InferenceServer(self.pool), self.gateways, self.queue)
        self.ticker.start()

    async def close(self) -> None:
        self.ticker.stop()
        self.intake.abandon_all()
        self.pool.close()
        self.gateways.close()
        await cancel_all()

    def lease(self, envelope: bytes) -> HandLease:
        lease = HandLease(envelope)
        self.intake.on_lease(lease)
        return lease

    async def answer(self, expected: Expected, lease: HandLease) -> tuple[int, bytes]:
        """Return status and body as the gateway got them, after the lease's end."""
        status, _, body = await expected.completed()
        await lease.ended.wait()
        assert lease.calls[-1] == "ack"
        return status, body

    def _sweep(self) -> None:
        self.pool.sweep()
        self.gateways.sweep()


@asynccontextmanager
async def running_bench(serve: Serve, concurrency: int = 4) -> AsyncIterator[Bench]:
    """Run the agent's inside with ``serve`` as inference server, at most `PATIENCE_S` long."""
    server = RawServer(serve)
    await server.start()
    async with asyncio.timeout(PATIENCE_S), running_fake_gateway() as gateway:
        bench = Bench(server, gateway, concurrency)
        bench.start()
        try:
            yield bench
        finally:
            await bench.close()
            server.stop()
