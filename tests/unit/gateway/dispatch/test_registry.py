"""The live invocations of a process, with a queue that does not answer."""

import asyncio
import json

from gateway.attach.endpoint import AttachEndpoint
from gateway.dispatch.registry import Desk
from gateway.domain.model import FunctionVersion, State
from gateway.invocation.caller import Caller
from gateway.invocation.machine import Invocation
from gateway.invocation.site import Site
from gateway.telemetry.metrics import GatewayMetrics
from http1.stream import Request
from runtime.metrics import Registry
from tests.support.recorder import RecordedQueue, RecordedResponseWriter, Script
from wire.ids import FunctionId, VersionId


class SilentQueue(RecordedQueue):
    """Knows no position in any time that matters."""

    async def position(self, version_id: str, request_id: str) -> int:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_queue_that_tells_no_place_in_line_holds_no_timeout_up() -> None:
    script = Script()
    queue = SilentQueue(script)
    client = RecordedResponseWriter(script, "client")
    answered = asyncio.Event()
    script.on_line = lambda line: answered.set() if line == "client.end" else None
    now = 100.0
    wanted: list[str] = []
    metrics = GatewayMetrics(Registry())
    desk = Desk(AttachEndpoint(lambda: now), queue, metrics, None, lambda: now, wanted.append)
    site = Site(
        queue=queue,
        desk=desk,
        region=b"eu",
        target_uri=b"http://10.0.0.1:8090",
        process=7,
        clock=lambda: now,
        wall_ns=lambda: 0,
    )
    version = FunctionVersion(
        FunctionId("11111111-1111-4111-8111-111111111111"),
        VersionId("22222222-2222-4222-8222-222222222222"),
        "acme",
        "echo",
        State.ACTIVE,
    )
    invocation = Invocation(
        site,
        client,
        Request(b"GET", b"/", b"f.example", [(b"host", b"f.example")], 0, now),
        Caller("acme", "alice", version, 1),
        request_id="33333333-3333-4333-8333-333333330007",
        tokens=("response-token", ""),
    )
    desk.open(invocation)
    assert wanted == [version.version_id]
    invocation.request_end()
    now = 103.2
    desk.tick()
    async with asyncio.timeout(1.5):
        await answered.wait()
    assert client.head is not None
    assert client.head[0] == 504
    assert json.loads(client.sent)["reason"] == "poll_timeout"
    assert not desk.live
