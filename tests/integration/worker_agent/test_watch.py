"""Watching an inference server whose health is served on a port of its own."""

import asyncio

from http1.client.pool import Pool
from runtime.tasks import spawn
from tests.support.raw_server import HEALTHY, Peer, RawServer
from tests.support.waiting import PATIENCE_S, until
from worker_agent.inference.health import HttpProbe
from worker_agent.inference.liveness import Liveness
from worker_agent.inference.watch import HealthWatch, WatchPorts


async def serve_healthy(peer: Peer) -> None:
    await peer.head()
    await peer.send(HEALTHY)


async def ignore(peer: Peer) -> None:
    await peer.closed()


def pool_of(server: RawServer) -> Pool:
    loop = asyncio.get_running_loop()
    return Pool(
        lambda factory: loop.create_connection(factory, "127.0.0.1", server.port),
        idle_s=4.0,
        max_idle=4,
        connect_timeout_s=PATIENCE_S,
    )


async def test_a_healthy_port_of_its_own_does_not_speak_for_the_port_of_requests() -> None:
    health, requests = RawServer(serve_healthy), RawServer(ignore)
    await health.start()
    await requests.start()
    probed: list[bool] = []
    watch = HealthWatch(
        Liveness(interval_s=60.0, max_misses=3),
        HttpProbe(
            pool_of(health),
            f"127.0.0.1:{health.port}",
            "/health",
            expected_status=200,
            timeout_s=PATIENCE_S,
            is_apart=True,
        ),
        pool_of(requests),
        WatchPorts(probed.append, lambda: None, lambda: 0.0),
    )
    assert not watch.is_healthy
    assert await watch.ask()
    assert watch.is_healthy
    watching = spawn(watch.run(), "watch")
    requests.stop()
    watch.unreachable(ConnectionRefusedError("refused"))
    await until(lambda: probed, lambda found: len(found) >= 4)
    assert probed == [True] + [False] * (len(probed) - 1)
    assert not watch.is_healthy
    await requests.start()
    await until(lambda: watch.is_healthy)
    assert not watch.failure
    watching.cancel()
    health.stop()
    requests.stop()
