"""The access log line of an invocation."""

import json

from gateway.telemetry.access_log import AccessLog
from runtime.logs import LineWriter
from tests.support.invocation_world import FUNCTION, REQUEST_ID, VERSION, World


class Lines(LineWriter):
    """Records the lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


def test_a_line_has_every_figure_of_a_finished_invocation() -> None:
    world = World(body_bytes=5)
    world.invocation.request_data(b"hello")
    world.publish()
    world.now = 100.25
    world.invocation.worker_s = -1
    world.attach()
    world.invocation.worker_s = 0.05
    world.now = 100.5
    world.head()
    world.invocation.response_data(b"abc")
    world.invocation.response_end()
    writer = Lines()
    AccessLog(writer, lambda: 1_700_000_000.25).write(world.invocation, 101.0)
    (line,) = writer.lines
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "gateway.access",
        "event": "invocation.finished",
        "request_id": REQUEST_ID,
        "function_id": FUNCTION,
        "function_version_id": VERSION,
        "nca_id": "acme",
        "outcome": "answered",
        "status": 200,
        "request_bytes": 5,
        "response_bytes": 3,
        "queue_ms": 200.0,
        "ttfb_ms": 500.0,
        "total_ms": 1000.0,
    }
