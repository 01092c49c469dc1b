"""A connection against h2's server side, without sockets and with a time of its own."""

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.settings import SettingCodes

from invocation_client.connection import (
    CANCELLED,
    STREAM_WINDOW_BYTES,
    CallStream,
    ConnectionCore,
    ConnectionPhase,
)
from invocation_client.failures import Processing
from invocation_client.pings import PingSchedule

FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"h"),
    (b":path", b"/"),
]
OK = [(b":status", b"200")]


class Pair:
    """A core and a server, and the time."""

    def __init__(
        self,
        *,
        interval_s: float | None = 30.0,
        expiry_s: float | None = 60.0,
        settings: dict[SettingCodes, int] | None = None,
    ) -> None:
        self.now = 100.0
        self.core = ConnectionCore(PingSchedule(interval_s, 10.0, self.now), expiry_s)
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.server.local_settings.update(settings or {})
        self.server.local_settings.acknowledge()
        self.server.initiate_connection()
        self.exchange()

    def open(self, *, is_whole: bool = True) -> CallStream:
        return self.core.open(FIELDS, self.now, is_whole=is_whole)

    def exchange(self) -> list[Event]:
        """Let both sides read; return what the server got."""
        events = self.server.receive_data(self.core.data_to_send())
        self.core.receive(self.server.data_to_send(), self.now)
        return events

    def to_server(self) -> list[Event]:
        return self.server.receive_data(self.core.data_to_send())

    def to_core(self) -> None:
        self.core.receive(self.server.data_to_send(), self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def test_a_connection_takes_calls_after_the_settings_of_the_server() -> None:
    core = ConnectionCore(PingSchedule(None, 10.0, 0.0), None)
    assert core.phase is ConnectionPhase.STARTING
    assert not core.can_open
    assert Pair().core.can_open


def test_a_response_has_head_data_trailers_and_end() -> None:
    pair = Pair()
    stream = pair.open()
    assert RequestReceived in kinds(pair.to_server())
    pair.server.send_headers(stream.id, [(b":status", b"103"), (b"link", b"x")])
    pair.to_core()
    assert stream.status == 0
    pair.server.send_headers(stream.id, [*OK, (b"a", b"b")])
    pair.server.send_data(stream.id, b"one")
    pair.server.send_data(stream.id, b"two", pad_length=5)
    pair.server.send_headers(stream.id, [(b"t", b"1")], end_stream=True)
    pair.to_core()
    assert (stream.status, stream.headers) == (200, [(b"a", b"b")])
    assert pair.core.take(stream) == b"onetwo"
    assert stream.trailers == [(b"t", b"1")]
    assert stream.is_ended
    assert stream.failure is None
    assert stream in pair.core.changed


def test_a_body_is_sent_as_far_as_the_window_allows() -> None:
    pair = Pair()
    stream = pair.open(is_whole=False)
    body = memoryview(bytes(100_000))
    sent = pair.core.send(stream, body)
    assert sent == 65_535
    assert not pair.core.is_sendable(stream)
    assert pair.core.send(stream, body[sent:]) == 0
    got = [event for event in pair.to_server() if isinstance(event, DataReceived)]
    assert sum(len(event.data) for event in got) == 65_535
    pair.server.increment_flow_control_window(50_000)
    pair.core.changed.clear()
    pair.server.increment_flow_control_window(50_000, stream.id)
    pair.to_core()
    assert stream in pair.core.changed
    assert pair.core.send(stream, body[sent:]) == 100_000 - sent
    pair.core.end(stream, pair.now)
    assert StreamEnded in kinds(pair.to_server())


def test_the_window_of_a_stream_grows_only_as_its_data_is_taken() -> None:
    pair = Pair()
    stream = pair.open()
    pair.to_server()
    pair.server.send_headers(stream.id, OK)
    for _ in range(STREAM_WINDOW_BYTES // 16_384):
        pair.server.send_data(stream.id, bytes(16_384))
        pair.to_core()
    updates = [event for event in pair.to_server() if isinstance(event, WindowUpdated)]
    assert {event.stream_id for event in updates} == {0}
    assert pair.server.local_flow_control_window(stream.id) == 0
    assert len(pair.core.take(stream)) == STREAM_WINDOW_BYTES
    pair.to_server()
    assert pair.server.local_flow_control_window(stream.id) == STREAM_WINDOW_BYTES


def test_data_of_cancelled_streams_does_not_use_up_the_connection() -> None:
    pair = Pair()
    for _ in range(100):
        stream = pair.open()
        pair.to_server()
        pair.server.send_headers(stream.id, OK)
        for _ in range(8):
            pair.server.send_data(stream.id, bytes(16_384))
        pair.core.cancel(stream, pair.now)
        pair.to_core()
        assert StreamReset in kinds(pair.to_server())
    assert pair.core.phase is ConnectionPhase.OPEN


def test_a_response_that_ends_before_the_request_keeps_its_data() -> None:
    pair = Pair()
    stream = pair.open(is_whole=False)
    pair.to_server()
    pair.server.send_headers(stream.id, [(b":status", b"413")])
    pair.server.send_data(stream.id, b"too large", end_stream=True)
    pair.to_core()
    assert pair.core.is_sendable(stream)
    assert pair.core.send(stream, memoryview(b"more")) == 4
    pair.core.end(stream, pair.now)
    assert StreamReset in kinds(pair.to_server())
    assert pair.core.take(stream) == b"too large"
    assert stream.failure is None


def test_a_reset_after_the_whole_response_is_no_failure() -> None:
    pair = Pair()
    stream = pair.open(is_whole=False)
    pair.to_server()
    pair.server.send_headers(stream.id, OK, end_stream=True)
    pair.server.reset_stream(stream.id, ErrorCodes.NO_ERROR)
    pair.to_core()
    pair.core.end(stream, pair.now)
    assert (stream.status, stream.is_ended, stream.failure) == (200, True, None)


@pytest.mark.parametrize(
    ("code", "processing"),
    [
        (ErrorCodes.REFUSED_STREAM, Processing.REFUSED),
        (ErrorCodes.INTERNAL_ERROR, Processing.POSSIBLE),
    ],
)
def test_a_reset_stream_fails(code: ErrorCodes, processing: Processing) -> None:
    pair = Pair()
    stream = pair.open()
    pair.to_server()
    pair.server.reset_stream(stream.id, code)
    pair.to_core()
    assert stream.failure is not None
    assert stream.failure.error is httpx.RemoteProtocolError
    assert stream.failure.processing is processing
    assert pair.core.can_open


def test_a_malformed_response_fails_alone() -> None:
    pair = Pair()
    first, second = pair.open(), pair.open()
    pair.to_server()
    pair.server.config.validate_outbound_headers = False
    pair.server.send_headers(first.id, [(b":status", b"abc")], end_stream=True)
    pair.server.send_headers(second.id, OK, end_stream=True)
    pair.to_core()
    assert first.failure is not None
    assert first.failure.error is httpx.RemoteProtocolError
    assert second.is_ended
    assert pair.core.can_open


def test_the_limit_of_the_server_is_kept() -> None:
    pair = Pair(settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    first = pair.open()
    pair.open()
    assert not pair.core.can_open
    pair.core.cancel(first, pair.now)
    assert pair.core.can_open


def goaway(last_stream: int, code: int = 0) -> bytes:
    payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big")
    return len(payload).to_bytes(3, "big") + bytes([7, 0, 0, 0, 0, 0]) + payload


def test_goaway_leaves_out_the_streams_above_and_the_others_end() -> None:
    pair = Pair()
    taken, left_out = pair.open(), pair.open()
    pair.to_server()
    pair.server.send_headers(taken.id, OK)
    head = pair.server.data_to_send()
    pair.server.send_data(taken.id, b"rest", end_stream=True)
    pair.core.receive(head + goaway(taken.id) + pair.server.data_to_send(), pair.now)
    assert left_out.failure is not None
    assert left_out.failure.processing is Processing.LEFT_OUT
    assert taken.failure is None
    assert (pair.core.take(taken), taken.is_ended) == (b"rest", True)
    assert pair.core.phase is ConnectionPhase.CLOSED
    assert ConnectionTerminated in kinds(pair.to_server())


def test_a_draining_connection_sends_bodies_and_pings() -> None:
    pair = Pair()
    stream = pair.open(is_whole=False)
    pair.to_server()
    for byte in goaway(stream.id):
        pair.core.receive(bytes([byte]), pair.now)
    assert pair.core.phase is ConnectionPhase.DRAINING
    assert not pair.core.can_open
    assert pair.core.send(stream, memoryview(b"body")) == 4
    pair.wait(30.0)
    assert {DataReceived, PingReceived} <= set(kinds(pair.exchange()))
    pair.wait(30.0)
    assert pair.core.phase is ConnectionPhase.DRAINING


def test_a_connection_that_is_lost_after_goaway_says_why() -> None:
    pair = Pair()
    stream = pair.open()
    pair.to_server()
    pair.core.receive(goaway(stream.id, ErrorCodes.ENHANCE_YOUR_CALM), pair.now)
    pair.core.lost("the server closed it")
    assert stream.failure is not None
    assert "ENHANCE_YOUR_CALM" in stream.failure.text
    assert stream.failure.processing is Processing.POSSIBLE


def test_nonsense_instead_of_frames_fails_all_streams() -> None:
    pair = Pair()
    stream = pair.open()
    pair.core.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n", pair.now)
    assert stream.failure is not None
    assert stream.failure.error is httpx.RemoteProtocolError
    assert pair.core.phase is ConnectionPhase.CLOSED


def test_a_ping_goes_out_when_the_server_was_silent_while_a_call_is_open() -> None:
    pair = Pair()
    pair.open()
    pair.exchange()
    pair.wait(29.9)
    assert PingReceived not in kinds(pair.exchange())
    pair.wait(30.0)
    assert kinds(pair.exchange()) == [PingReceived]
    assert pair.core.next_tick_at == pair.now + 30.0


def test_what_is_left_of_a_whole_response_that_is_cancelled_does_not_look_like_its_end() -> None:
    pair = Pair()
    stream, other = pair.open(), pair.open()
    pair.exchange()
    for one in (stream, other):
        pair.server.send_headers(one.id, OK)
        pair.server.send_data(one.id, b"body", end_stream=True)
    pair.exchange()
    pair.core.cancel(stream, pair.now)
    assert pair.core.take(stream) == b""
    assert (stream.is_ended, stream.failure) == (False, CANCELLED)
    assert pair.core.take(other) == b"body"
    pair.core.cancel(other, pair.now)
    assert (other.is_ended, other.failure) == (True, None)


def test_an_idle_connection_sends_no_pings_and_is_closed_in_the_end() -> None:
    pair = Pair()
    stream = pair.open()
    pair.core.cancel(stream, pair.now)
    pair.exchange()
    assert pair.core.next_tick_at == pair.now + 60.0
    pair.wait(59.0)
    assert PingReceived not in kinds(pair.exchange())
    pair.wait(1.0)
    assert pair.core.phase is ConnectionPhase.CLOSED
    assert kinds(pair.to_server()) == [ConnectionTerminated]
    assert pair.core.next_tick_at is None


def test_a_silent_server_is_dead_after_interval_and_timeout() -> None:
    pair = Pair()
    streams = [pair.open(), pair.open()]
    pair.exchange()
    pair.wait(30.0)
    assert pair.core.next_tick_at == pair.now + 10.0
    pair.wait(9.9)
    assert streams[0].failure is None
    pair.wait(0.1)
    for stream in streams:
        assert stream.failure is not None
        assert stream.failure.error is httpx.ReadError
        assert "PING" in stream.failure.text
    assert pair.core.phase is ConnectionPhase.CLOSED


def test_without_an_interval_there_are_no_pings() -> None:
    pair = Pair(interval_s=None)
    pair.open()
    assert pair.core.next_tick_at is None
    pair.wait(10_000.0)
    assert PingReceived not in kinds(pair.exchange())


def test_a_lost_connection_is_a_write_error_for_who_sends() -> None:
    pair = Pair()
    stream = pair.open(is_whole=False)
    pair.core.lost("reset by peer")
    assert stream.failure is not None
    assert isinstance(stream.failure.exception(), httpx.ReadError)
    assert isinstance(stream.failure.exception(is_sending=True), httpx.WriteError)
    assert pair.core.failure is stream.failure
