"""The access log line of an invocation."""

import json

import pytest

from gateway.telemetry.access_log import MAX_PATH_BYTES, AccessLog
from runtime.logs import LineWriter
from tests.support.invocation_world import FUNCTION, REQUEST_ID, VERSION, World
from tests.support.recorder import RecordedPost
from wire.source import Source


class Lines(LineWriter):
    """Records the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def written(world: World, now: float = 101.0) -> dict[str, object]:
    """Return the fields of the line that is written of an invocation."""
    writer = Lines()
    AccessLog(writer, lambda: 1_700_000_000.25).write(world.invocation, now)
    (line,) = writer.lines
    assert line.endswith("\n")
    assert line.isascii()
    return dict(json.loads(line))


def test_a_line_has_every_figure_of_a_finished_invocation() -> None:
    headers = [
        (b"host", b"f.example"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"x-request-id", b"mine-7"),
    ]
    world = World(
        body_bytes=5,
        headers=headers,
        source=Source("192.0.2.7", b"http", b"f.example"),
        key_id="key-1",
    )
    world.invocation.request_data(b"hello")
    world.publish()
    world.now = 100.25
    world.invocation.attached(RecordedPost(world.script), world.now, 0.05, b"instance-1")
    world.now = 100.5
    world.head()
    world.invocation.response_data(b"abc")
    world.invocation.response_end()
    assert written(world) == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "gateway.access",
        "event": "invocation.finished",
        "request_id": REQUEST_ID,
        "method": "POST",
        "path": "/v1/x%2Fy",
        "client": "192.0.2.7",
        "function_id": FUNCTION,
        "function_version_id": VERSION,
        "nca_id": "acme",
        "key_id": "key-1",
        "instance_id": "instance-1",
        "dispatch": "queued",
        "deliveries": 1,
        "outcome": "answered",
        "status": 200,
        "request_bytes": 5,
        "response_bytes": 3,
        "queue_ms": 200.0,
        "ttfb_ms": 500.0,
        "total_ms": 1000.0,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "caller_request_id": "mine-7",
    }


def test_what_callers_send_cannot_break_a_line_or_make_it_long() -> None:
    headers = [
        (b"host", b"f.example"),
        (b"traceparent", b'00-"}' + b"\xff" * 60),
        (b"x-request-id", b'"\xe4\t' + b"x" * 1000),
    ]
    world = World(headers=headers, target=b'/"\\' + b"y" * 9000)
    world.invocation.request_broken()
    line = written(world)
    assert line["trace_id"] == ""
    assert line["caller_request_id"] == '"\xe4\t' + "x" * 125
    assert line["path"] == '/"\\' + "y" * (MAX_PATH_BYTES - 3)
    assert line["outcome"] == "client_gone"


def test_a_line_says_by_which_way_the_call_went() -> None:
    unsent = World(body_bytes=10)
    unsent.invocation.request_broken()
    assert written(unsent)["dispatch"] == ""
    sent = World().send()
    sent.invocation.request_broken()
    assert written(sent)["dispatch"] == "direct"
    back = World().send()
    back.invocation.handed_back(was_run=False, was_sent=False)
    back.invocation.request_broken()
    assert written(back)["dispatch"] == "queued"


def test_a_call_that_waited_in_vain_has_no_instance_and_no_times() -> None:
    world = World().publish()
    world.invocation.deadline_passed(162.0, 1)
    world.invocation.position_known(3, 1)
    line = written(world, 162.0)
    assert (line["instance_id"], line["deliveries"], line["status"]) == ("", 0, 504)
    assert (line["queue_ms"], line["ttfb_ms"]) == (-1, -1)


def test_deliveries_count_workers_that_broke_off_and_what_the_last_one_said() -> None:
    world = World().publish().attach()
    world.invocation.response_broken()
    world.invocation.run_requested(3, is_running=False)
    assert world.invocation.deliveries == 3
    world.attach()
    assert world.invocation.deliveries == 3
    other = World().publish().attach()
    other.invocation.response_broken()
    # A worker that does not ask before it runs a request again.
    assert other.attach().invocation.deliveries == 2


@pytest.mark.parametrize("second", [1_700_000_000.0, 1_700_000_000.9996])
def test_milliseconds_have_three_digits(second: float) -> None:
    writer = Lines()
    world = World().stream()
    world.invocation.response_end()
    AccessLog(writer, lambda: second).write(world.invocation, 101.0)
    assert json.loads(writer.lines[0])["ts"] in {
        "2023-11-14T22:13:20.000Z",
        "2023-11-14T22:13:20.999Z",
    }
