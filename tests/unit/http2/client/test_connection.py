"""The HTTP/2 client against the codec of h2 as its server, without a socket."""

from concurrent.futures import Future
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.stream import Defect, Failure, Headers, NullResponseStream
from http2.client.connection import Http2Client
from http2.client.request import HIGH_WATER_BYTES, STREAM_WINDOW, Http2Request
from http2.frames import Code, Kind, encode_frame, encode_goaway, encode_rst_stream

HEAD = b"POST /a.B/C HTTP/1.1\r\nX-A: 1\r\nHost: h:80\r\ncontent-type: application/grpc\r\n\r\n"
OK = [(b":status", b"200"), (b"content-type", b"application/grpc")]
DONE = [(b"grpc-status", b"0")]


class Turns:
    """As much of an event loop as a connection uses."""

    def __init__(self) -> None:
        self.soon: list[Any] = []

    def time(self) -> float:
        return 1.0

    def create_future(self) -> "Future[None]":
        return Future()

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)

    def run(self) -> None:
        while self.soon:
            self.soon.pop(0)()


class Pipe:
    """The transport: ``written`` waits for the server."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Received(NullResponseStream):
    """A response in one form, however it was reported; ``calls`` has the reports' names."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.head: tuple[int, Headers] | None = None
        self.body = b""
        self.failure: tuple[Failure, bool, Defect | None] | None = None
        self.is_ended = False

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        self.calls.append("whole")
        self.head, self.body, self.is_ended = (status, headers), body, True

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        self.calls.append("head")
        self.head = status, headers

    def response_data(self, data: bytes) -> None:
        self.calls.append("data")
        self.body += data

    def response_end(self) -> None:
        self.calls.append("end")
        self.is_ended = True

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        self.failure = failure, is_stale, defect

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Wire:
    """A client's connection, its owner, and ``server``, the codec of h2 at its other end."""

    def __init__(self, **limits: int) -> None:
        self.loop = Turns()
        self.pipe = Pipe()
        self.is_lost = False
        self.client = Http2Client(self, self.loop)  # type: ignore[arg-type]
        self.client.connection_made(self.pipe)  # type: ignore[arg-type]
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.server = h2.connection.H2Connection(config)
        names = {h2.settings.SettingCodes[name]: value for name, value in limits.items()}
        self.server.local_settings = h2.settings.Settings(client=False, initial_values=names)
        self.server.initiate_connection()
        self.events: list[Any] = []
        self.exchange()

    def lost(self, connection: Http2Client) -> None:
        self.is_lost = True

    def exchange(self, step: int = 0) -> None:
        """Let everything arrive on both sides, to the client in reads of ``step`` bytes."""
        while True:
            self.loop.run()
            written, self.pipe.written = self.pipe.written, b""
            if written:
                self.events += self.server.receive_data(written)
            data = self.server.data_to_send()
            size = step or max(len(data), 1)
            for at in range(0, len(data), size):
                self.client.data_received(data[at : at + size])
            if not data and not written:
                return

    def ask(self, body: bytes = b"", *, is_complete: bool = True) -> tuple[Received, Http2Request]:
        received = Received()
        request = self.client.start(received, HEAD, body, is_complete=is_complete)
        self.exchange()
        return received, request

    def got(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def test_a_request_arrives_as_it_was_given_and_asks_for_trailers() -> None:
    wire = Wire()
    _, request = wire.ask(b"first", is_complete=False)
    request.send_data(b"second")
    request.send_end()
    wire.exchange()
    (asked,) = wire.got(h2.events.RequestReceived)
    assert asked.headers == [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/a.B/C"),
        (b":authority", b"h:80"),
        (b"te", b"trailers"),
        (b"x-a", b"1"),
        (b"content-type", b"application/grpc"),
    ]
    assert b"".join(event.data for event in wire.got(h2.events.DataReceived)) == b"firstsecond"
    assert len(wire.got(h2.events.StreamEnded)) == 1


def test_a_response_of_one_read_is_reported_whole_with_its_trailers() -> None:
    wire = Wire()
    for _ in range(3):
        # The second one's head is in the table, the third one's block is known.
        received, request = wire.ask(b"x")
        wire.server.send_headers(request.id, OK)
        wire.server.send_data(request.id, b"body")
        wire.server.send_headers(request.id, DONE, end_stream=True)
        wire.exchange()
        assert received.calls == ["whole"]
        assert received.head == (200, [(b"content-type", b"application/grpc")])
        assert (received.body, request.trailers) == (b"body", DONE)
    received, request = wire.ask()
    wire.server.send_headers(request.id, [*OK, *DONE], end_stream=True)
    wire.exchange()
    assert received.calls == ["whole"]
    assert received.head is not None
    assert received.head[1][-1] == DONE[0]
    assert len(wire.client) == 0


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.integers(1, 200),
    st.booleans(),
    st.booleans(),
)
def test_any_split_of_a_response_is_the_same_response(
    parts: list[bytes], step: int, has_trailers: bool, has_interim: bool
) -> None:
    wire = Wire()
    received, request = wire.ask(b"x")
    if has_interim:
        wire.server.send_headers(request.id, [(b":status", b"103"), (b"link", b"</a>")])
    wire.server.send_headers(request.id, [*OK, (b"x-long", b"v" * 300)])
    for part in parts:
        wire.server.send_data(request.id, part)
    if has_trailers:
        wire.server.send_headers(request.id, DONE, end_stream=True)
    else:
        wire.server.end_stream(request.id)
    wire.exchange(step)
    assert received.head is not None
    assert received.head[0] == 200
    assert (received.body, received.is_ended) == (b"".join(parts), True)
    assert request.trailers == (DONE if has_trailers else [])
    assert received.failure is None


@given(st.binary(max_size=300), st.integers(1, 60))
def test_no_bytes_of_a_server_crash_the_client(data: bytes, step: int) -> None:
    wire = Wire()
    received, _ = wire.ask(b"x")
    for at in range(0, len(data), step):
        if not wire.pipe.is_closed:
            wire.client.data_received(data[at : at + step])
    wire.client.connection_lost(None)
    assert received.is_ended or received.failure is not None


def test_one_body_that_waits_for_its_window_holds_up_no_other() -> None:
    wire = Wire(INITIAL_WINDOW_SIZE=1000)
    slow, first = wire.ask(b"a" * 500, is_complete=False)
    first.send_data(b"a" * (HIGH_WATER_BYTES + 2000))
    _, second = wire.ask(b"b" * 900)
    wire.exchange()
    sizes = {first.id: 0, second.id: 0}
    for event in wire.got(h2.events.DataReceived):
        sizes[event.stream_id] += len(event.data)
    assert sizes == {first.id: 1000, second.id: 900}
    assert slow.calls == ["pause"]
    first.send_end()
    for _ in range(80):
        wire.server.increment_flow_control_window(1000, first.id)
        wire.server.increment_flow_control_window(1000)
        wire.exchange()
    assert slow.calls == ["pause", "resume"]
    total = sum(
        len(event.data) for event in wire.got(h2.events.DataReceived) if event.stream_id == first.id
    )
    assert total == HIGH_WATER_BYTES + 2500
    assert wire.got(h2.events.StreamEnded)[-1].stream_id == first.id


def test_a_paused_reader_stops_its_own_stream_alone() -> None:
    wire = Wire()
    received, request = wire.ask()
    other, second = wire.ask()
    for one in (request, second):
        wire.server.send_headers(one.id, OK)
    wire.exchange()
    request.pause_reading()
    sent = 0
    while wire.server.local_flow_control_window(request.id) >= 10_000:
        wire.server.send_data(request.id, b"x" * 10_000)
        sent += 10_000
        wire.exchange()
    assert sent <= STREAM_WINDOW
    assert wire.server.local_flow_control_window(second.id) == STREAM_WINDOW
    request.resume_reading()
    wire.exchange()
    assert wire.server.local_flow_control_window(request.id) == STREAM_WINDOW
    assert (len(received.body), other.body) == (sent, b"")
    second.took(1)
    wire.exchange()
    assert wire.server.local_flow_control_window(second.id) == STREAM_WINDOW


def test_what_a_server_has_surely_not_processed_may_be_sent_again() -> None:
    wire = Wire()
    first, asked = wire.ask(b"x")
    second, _ = wire.ask(b"x")
    third, refused = wire.ask(b"x")
    wire.client.data_received(encode_rst_stream(refused.id, Code.REFUSED_STREAM))
    assert third.failure == (Failure.CLOSED, True, None)
    wire.client.data_received(encode_goaway(asked.id, Code.NO_ERROR))
    assert second.failure == (Failure.CLOSED, True, None)
    assert wire.is_lost
    assert not wire.client.has_room()
    assert first.failure is None
    wire.server.send_headers(asked.id, OK, end_stream=True)
    wire.exchange()
    assert first.is_ended
    assert wire.pipe.is_closed


def test_a_reset_of_the_server_ends_one_call_with_its_reason() -> None:
    wire = Wire()
    received, request = wire.ask(b"x")
    other, second = wire.ask(b"x")
    wire.server.reset_stream(request.id, Code.INTERNAL_ERROR)
    wire.exchange()
    assert received.failure is not None
    assert received.failure[0] is Failure.INVALID
    assert "INTERNAL_ERROR" in str(received.failure[2])
    wire.server.send_headers(second.id, OK, end_stream=True)
    wire.exchange()
    assert other.is_ended


def test_a_call_that_nobody_waits_for_is_reset() -> None:
    wire = Wire()
    received, request = wire.ask(b"x", is_complete=False)
    rest = Received()
    request.discard(rest)
    wire.exchange()
    (reset,) = wire.got(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (request.id, Code.CANCEL)
    assert rest.failure == (Failure.CLOSED, False, None)
    assert received.calls == []
    # What was on its way is no fault.
    wire.client.data_received(encode_frame(Kind.DATA, 0, request.id, b"late"))
    assert not wire.pipe.is_closed


def test_a_response_that_ends_before_its_request_ends_the_request() -> None:
    wire = Wire()
    received, request = wire.ask(b"x", is_complete=False)
    wire.server.send_headers(request.id, [*OK, (b"grpc-status", b"12")], end_stream=True)
    wire.exchange()
    assert received.calls == ["whole"]
    assert wire.got(h2.events.StreamReset)[0].stream_id == request.id
    request.send_data(b"more")
    request.send_end()
    wire.exchange()


def test_no_more_streams_than_the_server_takes() -> None:
    wire = Wire(MAX_CONCURRENT_STREAMS=2)
    asked = [wire.ask(b"x") for _ in range(2)]
    assert not wire.client.has_room()
    wire.server.send_headers(asked[0][1].id, OK, end_stream=True)
    wire.exchange()
    assert wire.client.has_room()


@pytest.mark.parametrize(
    "headers",
    [
        [(b":status", b"2000")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"x y", b"a")],
        [(b":status", b"200"), (b"x", b"a\r\nb")],
        [(b"x", b"a"), (b":status", b"200")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_a_malformed_head_fails_its_call_alone(headers: Headers) -> None:
    wire = Wire()
    received, request = wire.ask(b"x")
    config = h2.config.H2Configuration(
        client_side=False,
        header_encoding=None,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    wire.server.config = config
    wire.server.streams[request.id].config = config
    wire.server.send_headers(request.id, headers)
    wire.exchange()
    assert received.failure is not None
    assert received.failure[0] is Failure.INVALID
    other, second = wire.ask(b"x")
    wire.server.send_headers(second.id, OK, end_stream=True)
    wire.exchange()
    assert other.is_ended


def test_a_connection_that_ends_fails_what_is_on_it() -> None:
    wire = Wire()
    waiting, _ = wire.ask(b"x")
    begun, request = wire.ask(b"x")
    wire.server.send_headers(request.id, OK)
    wire.server.send_data(request.id, b"half")
    wire.exchange()
    wire.client.connection_lost(ConnectionResetError())
    assert wire.client.ready.done()
    assert (waiting.failure, begun.failure) == ((Failure.RESET, False, None),) * 2
    assert begun.calls == ["head", "data"]
    assert wire.is_lost


def test_a_server_that_speaks_something_else_is_no_server() -> None:
    loop, pipe = Turns(), Pipe()
    client = Http2Client(Wire(), loop)  # type: ignore[arg-type]
    client.connection_made(pipe)  # type: ignore[arg-type]
    client.data_received(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    assert pipe.is_closed
    with pytest.raises(ConnectionError, match="no HTTP/2 server"):
        client.ready.result()


def test_pings_are_answered() -> None:
    wire = Wire()
    wire.server.ping(b"12345678")
    wire.exchange()
    assert [event.ping_data for event in wire.got(h2.events.PingAckReceived)] == [b"12345678"]
