"""The worker agent's data path in this process: inference server and gateway on loopback sockets.

The test hands out the leases; there is no queue.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from http1.client.pool import Pool
from queueing.interface import PollHandler, QueueUnavailable
from runtime.lifecycle import Ticker
from runtime.metrics import MetricRegistry
from runtime.tasks import cancel_all
from tests.support.fake_gateway import Expected, FakeGateway, running_fake_gateway
from tests.support.raw_server import RawServer, Serve
from tests.support.waiting import PATIENCE_S
from wire.deadlines import VANISHED_S
from worker_agent.app.metrics import Metrics
from worker_agent.attach.channels import AgentChannels
from worker_agent.attach.gateways import AttachLimits, GatewayPool, connector, is_target
from worker_agent.compat.call import Compat
from worker_agent.inference.health import HttpProbe
from worker_agent.inference.liveness import Liveness
from worker_agent.inference.server import InferenceServer
from worker_agent.inference.watch import HealthWatch, WatchPorts
from worker_agent.job.request import PlatformHeaders
from worker_agent.runner import JobRunner
from worker_agent.slots import Slots


class HandLease:
    """A lease that records its calls; ``ended`` is set by the one that ends it."""

    def __init__(
        self,
        envelope: bytes,
        deliveries: int = 1,
        stored_at: float = 0.0,
        *,
        knows_first: bool = True,
    ) -> None:
        self.envelope = envelope
        self.stored_at = stored_at
        self.deliveries = deliveries
        self.knows_first = knows_first
        self.behind = 0
        self.calls: list[str] = []
        self.ended = asyncio.Event()

    def followers(self) -> int:
        return self.behind

    def stored_at_ns(self) -> int:
        return int(self.stored_at * 1e9)

    def is_first_known(self) -> bool:
        return self.knows_first

    def in_progress(self) -> None:
        self.calls.append("in_progress")

    def ack(self) -> None:
        self._end("ack")

    def nak(self, delay_s: float = 0.0) -> None:
        self._end("nak")

    def is_over(self) -> bool:
        return False

    def term(self) -> None:
        self._end("term")

    def _end(self, call: str) -> None:
        assert not self.ended.is_set(), f"{call} after {self.calls}"
        self.calls.append(call)
        self.ended.set()


class PollListener:
    """A subscription to the polls of one request."""

    def __init__(self, polls: dict[str, PollHandler], request_id: str) -> None:
        self._polls = polls
        self._request_id = request_id

    def unsubscribe(self) -> None:
        del self._polls[self._request_id]


class Wanted:
    """A queue that only records how many requests the agent asks for, and passes on polls."""

    def __init__(self) -> None:
        self.free = -1
        self.wanted: list[int] = []
        self.is_up = True
        self.polls: dict[str, PollHandler] = {}

    def want(self, free: int) -> None:
        self.free = free
        self.wanted.append(free)

    def watch(
        self,
        on_standstill: Callable[[], None],
        on_loss: Callable[[], None],
        on_bound: Callable[[], None],
        renew: Callable[[], None],
        on_line: Callable[[], None],
    ) -> None:
        """Nothing is lost here."""

    def taken(self) -> None:
        self.free -= 1

    def is_line_empty(self) -> bool:
        return True

    async def listen_for_polls(self, request_id: str, on_poll: PollHandler) -> PollListener:
        if not self.is_up:
            raise QueueUnavailable("down")
        self.polls[request_id] = on_poll
        return PollListener(self.polls, request_id)

    def poll(self, request_id: str, envelope: bytes) -> bool:
        """Send a poll; return whether it was acknowledged."""
        acknowledged: list[bool] = []
        self.polls[request_id](envelope, lambda: acknowledged.append(True))
        return bool(acknowledged)


class Agent:
    """The data path of one agent. It keeps folders of requests below ``folder``, if given."""

    def __init__(
        self,
        server: RawServer,
        gateway: FakeGateway,
        concurrency: int,
        cancel_grace_s: float,
        folder: Path | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.gateway = gateway
        self.queue = Wanted()
        self.slots = Slots(concurrency, 256)
        self._registry = MetricRegistry()
        self.metrics = Metrics(self._registry, loop.time)
        platform_headers = PlatformHeaders(
            f"127.0.0.1:{server.port}",
            [("NVCF-FUNCTION-ID", "the-function"), ("NVCF-REGION", "zone-1")],
            asset_dir="/assets" if folder is None else str(folder / "assets"),
            large_output_dir="/output" if folder is None else str(folder / "output"),
            has_compat=folder is not None,
        )
        self.compat: Compat | None = None
        if folder is not None:
            self.compat = Compat(platform_headers, is_attachable=is_target, max_asset_bytes=1 << 20)
        self.channels = AgentChannels(
            "the-version",
            "the-instance",
            lambda uri, factory: connector(uri, loop)(factory),
            connect_timeout_s=5.0,
            vanished_s=VANISHED_S,
        )
        self.intake = JobRunner(
            self.slots,
            platform_headers,
            self.metrics,
            channels=self.channels,
            is_attachable=is_target,
            on_busy=lambda: None,
            compat=self.compat,
        )
        self.pool = Pool(
            lambda factory: loop.create_connection(factory, "127.0.0.1", server.port),
            idle_s=4.0,
            max_idle=concurrency,
            connect_timeout_s=5.0,
        )
        self.watch = HealthWatch(
            Liveness(interval_s=60.0, max_misses=3),
            HttpProbe(
                self.pool,
                f"127.0.0.1:{server.port}",
                "/health",
                expected_status=200,
                timeout_s=PATIENCE_S,
            ),
            self.pool,
            WatchPorts(lambda _: None, self._server_changed, lambda: self.metrics.responses),
        )
        self.inference = InferenceServer(self.pool, self.watch, cancel_grace_s=cancel_grace_s)
        self.gateways = GatewayPool(
            AttachLimits(idle_s=30.0, max_idle=256, connect_timeout_s=5.0, vanished_s=VANISHED_S),
            self.channels,
        )
        self.ticker = Ticker(0.5, self._sweep)

    def start(self) -> None:
        self.intake.open(self.inference, self.gateways, self.queue)
        self.ticker.start()

    def exposition(self) -> str:
        """Return the metrics as they are scraped."""
        return self._registry.exposition().decode()

    async def close(self) -> None:
        self.ticker.stop()
        self.intake.abandon_all()
        if self.compat is not None:
            await self.compat.close()
        self.pool.close()
        self.gateways.close()
        self.channels.close()
        await cancel_all()

    def lease(
        self,
        envelope: bytes,
        deliveries: int = 1,
        stored_at: float = 0.0,
        *,
        knows_first: bool = True,
    ) -> HandLease:
        lease = HandLease(envelope, deliveries, stored_at, knows_first=knows_first)
        self.intake.on_lease(lease)
        return lease

    async def answer(self, expected: Expected, lease: HandLease) -> tuple[int, bytes]:
        """Return status and body that the gateway received, after the lease has ended."""
        status, _, body = await expected.completed()
        await lease.ended.wait()
        assert lease.calls[-1] == "ack"
        return status, body

    def _sweep(self) -> None:
        self.inference.sweep()
        self.gateways.sweep()
        self.channels.sweep()
        self.intake.sweep()

    def _server_changed(self) -> None:
        if self.watch.failure:
            self.intake.pause()
        else:
            self.intake.resume()


@asynccontextmanager
async def running_agent(
    serve: Serve,
    concurrency: int = 4,
    cancel_grace_s: float = 120.0,
    folder: Path | None = None,
) -> AsyncIterator[Agent]:
    """Run an agent with ``serve`` as inference server, for at most `PATIENCE_S` seconds."""
    server = RawServer(serve)
    await server.start()
    async with asyncio.timeout(PATIENCE_S), running_fake_gateway() as gateway:
        agent = Agent(server, gateway, concurrency, cancel_grace_s, folder)
        agent.start()
        try:
            yield agent
        finally:
            await agent.close()
            server.stop()
