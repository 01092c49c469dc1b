"""The HTTP/1.1 client, byte by byte, without a socket."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.client.connection import ClientConnection
from http1.stream import Defect, Failure, Headers, NullResponseStream
from tests.unit.http1.client.transport import Transport
from wire.http1 import chunk_data

BODY = bytes(range(256)) * 3


class Clock:
    """As much of an event loop as a connection uses."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return 1.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def run(self) -> None:
        """Run the turns that are due, until none is left."""
        while self.soon:
            self.soon.pop(0)()


class Recorder:
    """Owner and response stream in one; records a response in one form, however it is reported."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.announced: int | None = None
        self.body = b""
        self.ends = 0
        self.failure: Failure | None = None
        self.is_released = False
        self.interim: list[tuple[int, Headers]] = []

    def response_interim(self, status: int, headers: Headers) -> None:
        assert not self.status
        self.interim.append((status, headers))

    def response_whole(
        self, status: int, headers: Headers, body_bytes: int | None, body: bytes
    ) -> None:
        self.response_head(status, headers, body_bytes)
        self.response_data(body)
        self.response_end()

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        assert not self.status
        self.status, self.headers, self.announced = status, headers, body_bytes

    def response_data(self, data: bytes) -> None:
        assert self.status
        assert not self.ends
        self.body += data

    def response_end(self) -> None:
        self.ends += 1

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        assert self.failure is None
        self.failure = failure

    def released(self, connection: ClientConnection) -> None:
        self.is_released = True

    def lost(self, connection: ClientConnection) -> None: ...

    def delay_small_body(self, connection: ClientConnection) -> None: ...

    pause_writing = resume_writing = lambda self: None


def received(
    reads: list[bytes], *, is_head: bool = False, eof: bool = False, reports_interim: bool = False
) -> Recorder:
    """Return the record of a response that arrives in ``reads``."""
    recorder: Any = Recorder()
    clock: Any = Clock()
    transport: Any = Transport()
    connection = ClientConnection(recorder, clock)
    connection.connection_made(transport)
    request = b"GET / HTTP/1.1\r\n\r\n"
    connection.start(recorder, request, b"", is_head=is_head, reports_interim=reports_interim)
    for data in reads:
        if not transport.closing:
            connection.data_received(data)
    if eof and not transport.closing:
        connection.eof_received()
        connection.connection_lost(None)
    return recorder


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({cut % len(data) for cut in cuts} - {0})
    return [data[a:b] for a, b in zip([0, *bounds], [*bounds, len(data)], strict=True)]


RESPONSES = {
    "length": b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 768\r\n\r\n" + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nX-A: b\r\ntransfer-encoding: chunked\r\n\r\n"
    b"100\r\n" + BODY[:256] + b"\r\n200;x=y\r\n" + BODY[256:] + b"\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 768\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("kind", sorted(RESPONSES))
@given(cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_into_reads_reports_the_same_response(kind: str, cuts: list[int]) -> None:
    recorder = received(split(RESPONSES[kind], cuts))
    assert (recorder.status, recorder.body, recorder.ends, recorder.failure) == (200, BODY, 1, None)
    assert (b"x-a", b"b") in recorder.headers
    assert b"content-length" not in dict(recorder.headers)
    assert recorder.is_released


@given(cuts=st.lists(st.integers(0, 2000), max_size=12), asked=st.booleans())
def test_interim_responses_are_reported_to_who_asks_for_them(cuts: list[int], asked: bool) -> None:
    more = b"HTTP/1.1 102 Processing\r\n\r\n"
    recorder = received(split(more + RESPONSES["interim"], cuts), reports_interim=asked)
    assert recorder.interim == ([(102, []), (103, [(b"link", b"x")])] if asked else [])
    assert (recorder.status, recorder.body, recorder.ends) == (200, BODY, 1)


def test_an_interim_response_is_reported_before_the_response_has_come() -> None:
    recorder = received([b"HTTP/1.1 103 \r\nLink: x\r\n\r\nHTTP/1.1 2"], reports_interim=True)
    assert (recorder.interim, recorder.status) == ([(103, [(b"link", b"x")])], 0)


@pytest.mark.parametrize("how", ["close", "discard"])
def test_whoever_leaves_at_an_interim_response_hears_no_more_of_the_response(how: str) -> None:
    class Leaving(Recorder):
        def response_interim(self, status: int, headers: Headers) -> None:
            super().response_interim(status, headers)
            if how == "close":
                connection.close()
            else:
                connection.discard(rest)

    recorder: Any = Leaving()
    rest: Any = Recorder()
    clock: Any = Clock()
    transport: Any = Transport()
    connection = ClientConnection(recorder, clock)
    connection.connection_made(transport)
    connection.start(recorder, b"GET / HTTP/1.1\r\n\r\n", b"", reports_interim=True)
    connection.data_received(b"HTTP/1.1 102 \r\n\r\n" + RESPONSES["interim"])
    assert [status for status, _ in recorder.interim] == [102]
    assert (recorder.status, recorder.failure) == (0, None)
    assert rest.body == (BODY if how == "discard" else b"")


TRAILERS = {
    "plain": b"X-Sum: 1\r\nServer-Timing: a;dur=1\r\n",
    "cookie": b"Set-Cookie: sid=1\r\n",
    "length": b"Content-Length: 5\r\n",
    "no length": b"Content-Length: five\r\ncontent-length: 7\r\n",
    "coding": b"Transfer-Encoding: gzip\r\nConnection: close\r\nUpgrade: h2c\r\n",
    "long": b"X-Signature: " + b"s" * 3000 + b"\r\n",
}


@pytest.mark.parametrize("kind", sorted(TRAILERS))
@given(cuts=st.lists(st.integers(0, 5000), max_size=12))
def test_trailers_are_no_headers_and_break_nothing_however_they_are_cut(
    kind: str, cuts: list[int]
) -> None:
    response = RESPONSES["chunked"][:-2] + TRAILERS[kind] + b"\r\n"
    recorder = received(split(response, cuts))
    assert (recorder.status, recorder.body, recorder.ends, recorder.failure) == (200, BODY, 1, None)
    assert recorder.headers == [(b"x-a", b"b"), (b"transfer-encoding", b"chunked")]
    assert recorder.is_released


@pytest.mark.parametrize(
    "trailer", [b"X : y\r\n", b"X: a\x01\r\n", b"X: y%b\r\n" % (b"y" * 900) * 20]
)
def test_trailers_that_are_none_cost_the_connection_and_not_the_response(trailer: bytes) -> None:
    recorder = received([RESPONSES["chunked"][:-2] + trailer + b"\r\n"])
    assert (recorder.body, recorder.ends, recorder.failure) == (BODY, 1, None)
    assert not recorder.is_released


def test_so_many_chunks_that_they_wait_for_the_next_turn_arrive_all() -> None:
    recorder: Any = Recorder()
    loop: Any = Clock()
    transport: Any = Transport()
    connection = ClientConnection(recorder, loop)
    connection.connection_made(transport)
    connection.start(recorder, b"GET / HTTP/1.1\r\n\r\n", b"")
    connection.data_received(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nz\r\n" * 5000
    )
    assert 0 < len(recorder.body) < 5000
    connection.pause_reading()
    loop.run()
    held = len(recorder.body)
    connection.resume_reading()
    loop.run()
    assert held < len(recorder.body) == 5000
    connection.data_received(b"0\r\n\r\n")
    assert (recorder.ends, recorder.is_released) == (1, True)


@given(cuts=st.lists(st.integers(0, 2000), max_size=12), keep=st.integers(0, 1000))
def test_a_response_cut_short_never_ends(cuts: list[int], keep: int) -> None:
    for response in (RESPONSES["length"], RESPONSES["chunked"]):
        recorder = received(split(response[: 1 + keep % (len(response) - 1)], cuts), eof=True)
        assert recorder.ends == 0
        assert recorder.failure is Failure.CLOSED
        assert not recorder.is_released


@given(cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_without_length_the_end_of_the_connection_is_the_end(cuts: list[int]) -> None:
    recorder = received(split(b"HTTP/1.1 200 OK\r\n\r\n" + BODY, cuts), eof=True)
    assert (recorder.body, recorder.ends, recorder.announced) == (BODY, 1, None)
    assert not recorder.is_released


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_no_bytes_crash_it(data: bytes, cuts: list[int]) -> None:
    if data:
        recorder = received(split(data, cuts), eof=True)
        assert recorder.ends + (recorder.failure is not None) == 1


def test_a_head_response_keeps_its_length_and_takes_no_body() -> None:
    recorder = received([b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"], is_head=True)
    assert (recorder.announced, recorder.body, recorder.ends) == (7, b"", 1)
    assert recorder.is_released
    recorder = received([b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nforged!"], is_head=True)
    assert recorder.body == b""
    assert not recorder.is_released


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore",
    ],
)
def test_a_connection_that_must_not_be_reused_is_not_reused(response: bytes) -> None:
    recorder = received([response])
    assert recorder.ends == 1
    assert not recorder.is_released


EVENTS = [b"data: %d\n\n" % (10**n) for n in range(12)]


def as_chunks(events: list[bytes]) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(event), event) for event in events]


class Passing(Recorder):
    """Takes single chunks as they are; ``left_at``: discards the rest after so many of them."""

    connection: ClientConnection

    def __init__(self, left_at: int = 0) -> None:
        super().__init__()
        self.chunks: list[bytes] = []
        self.left_at = left_at
        self.rest = Recorder()

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        super().response_head(status, headers, body_bytes)
        self.connection.pass_chunks(self.take_chunk)

    def take_chunk(self, chunk: bytes, size: int) -> None:
        assert self.rest.body == b""
        self.chunks.append(chunk)
        self.response_data(chunk_data(chunk, size))
        if len(self.chunks) == self.left_at:
            self.rest.status = self.status
            self.connection.discard(self.rest)  # type: ignore[arg-type]  # stands in


def passed(reads: list[bytes], left_at: int = 0) -> Passing:
    recorder: Any = Passing(left_at)
    clock: Any = Clock()
    connection = recorder.connection = ClientConnection(recorder, clock)
    transport: Any = Transport()
    connection.connection_made(transport)
    connection.start(recorder, b"GET / HTTP/1.1\r\n\r\n", b"")
    for data in reads:
        connection.data_received(data)
    passing: Passing = recorder
    return passing


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_each_read_that_is_one_chunk_is_passed_on_as_it_is() -> None:
    chunks = as_chunks(EVENTS)
    recorder = passed([CHUNKED + chunks[0], *chunks[1:4], b"".join(chunks[4:]), b"0\r\n\r\n"])
    assert recorder.chunks == chunks[1:4]
    assert (recorder.body, recorder.ends, recorder.is_released) == (b"".join(EVENTS), 1, True)


@given(st.lists(st.integers(0, 1), min_size=13, max_size=13), st.lists(st.integers(0, 400)))
def test_passing_chunks_on_loses_nothing_however_the_reads_are_cut(
    joined: list[int], cuts: list[int]
) -> None:
    whole = CHUNKED + b"".join([*as_chunks(EVENTS), b"0\r\n\r\n"])
    at, bounds = len(CHUNKED), [len(CHUNKED)]
    for chunk, is_joined in zip(as_chunks(EVENTS), joined, strict=False):
        at += len(chunk)
        bounds += [] if is_joined else [at]
    recorder = passed(split(whole, bounds + cuts))
    assert (recorder.body, recorder.ends, recorder.failure) == (b"".join(EVENTS), 1, None)
    assert recorder.is_released


def test_who_discards_the_rest_at_a_chunk_gets_no_more_of_them() -> None:
    chunks = as_chunks(EVENTS)
    recorder = passed([CHUNKED, *chunks, b"0\r\n\r\n"], left_at=3)
    assert recorder.chunks == chunks[:3]
    assert (recorder.ends, recorder.rest.body) == (0, b"".join(EVENTS[3:]))
    assert recorder.rest.ends == 1


def test_a_request_body_is_framed_as_announced() -> None:
    sent = []
    for is_chunked in (False, True):
        recorder: Any = Recorder()
        clock: Any = Clock()
        transport: Any = Transport()
        connection = ClientConnection(recorder, clock)
        connection.connection_made(transport)
        connection.start(recorder, b"H", b"ab", is_chunked=is_chunked, is_complete=False)
        connection.send_chunk(b"2\r\ncd\r\n", 2)
        connection.send_data(b"x" * 5000)
        connection.send_end()
        sent.append(transport.sent)
    assert sent[0] == b"Habcd" + b"x" * 5000
    assert sent[1] == (b"H2\r\nab\r\n2\r\ncd\r\n1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n")


class Ending(NullResponseStream):
    """The stream to which the rest of a response is left; records how it ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def response_end(self) -> None:
        self.ends.append("end")

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        self.ends.append(failure.name)


class Leaver(Recorder):
    """Discards the response when the ``leave_at``-th of its events comes."""

    def __init__(self, leave_at: int) -> None:
        super().__init__()
        self.left = leave_at
        self.connection: Any = None
        self.rest = Ending()

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        super().response_head(status, headers, body_bytes)
        self.leave()

    def response_data(self, data: bytes) -> None:
        super().response_data(data)
        self.leave()

    def response_broken(
        self, failure: Failure, *, is_stale: bool, defect: Defect | None = None
    ) -> None:
        super().response_broken(failure, is_stale=is_stale, defect=defect)
        if failure is Failure.INVALID:
            self.connection.discard(self.rest)

    def leave(self) -> None:
        self.left -= 1
        if self.left == 0 and self.connection.response_stream is self:
            self.connection.discard(self.rest)


def left(reads: list[bytes], leave_at: int, *, is_head: bool = False) -> tuple[Leaver, Transport]:
    """Return the record of a response that is left in the midst, and its connection's end."""
    leaver: Any = Leaver(leave_at)
    clock: Any = Clock()
    transport: Any = Transport()
    connection = leaver.connection = ClientConnection(leaver, clock)
    connection.connection_made(transport)
    connection.start(leaver, b"GET / HTTP/1.1\r\n\r\n", b"", is_head=is_head)
    if leave_at == 0:
        connection.discard(leaver.rest)
    for data in reads:
        if not transport.closing:
            connection.data_received(data)
    return leaver, transport


@pytest.mark.parametrize("kind", sorted(RESPONSES))
@given(cuts=st.lists(st.integers(0, 2000), max_size=12), leave_at=st.integers(0, 4))
def test_a_response_that_is_left_ends_once_elsewhere_and_its_connection_is_not_reused(
    kind: str, cuts: list[int], leave_at: int
) -> None:
    leaver, transport = left(split(RESPONSES[kind], cuts), leave_at)
    if transport.has_ended_input:
        assert (leaver.rest.ends, leaver.ends, leaver.failure) == (["end"], 0, None)
        assert transport.closing
        assert not leaver.is_released
    else:
        assert (leaver.rest.ends, leaver.ends) == ([], 1)


def test_a_head_response_that_is_left_does_not_make_its_connection_reusable() -> None:
    leaver, transport = left([b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"], 0, is_head=True)
    assert leaver.rest.ends == ["end"]
    assert transport.closing
    assert not leaver.is_released


def test_of_what_is_not_http_the_end_of_the_connection_is_awaited() -> None:
    leaver, transport = left([b"220 smtp.example ESMTP\r\n", b"more of it", b"\r\n"], 9)
    assert leaver.failure is Failure.INVALID
    assert (leaver.rest.ends, transport.closing) == ([], False)
    leaver.connection.connection_lost(None)
    assert leaver.rest.ends == ["CLOSED"]


@pytest.mark.parametrize(
    ("refused", "is_complete"),
    [
        (b"HTTP/1.1 200 OK\r\nX: a\x01\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\ncontent-length:2\n\nok", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nX: a\x01\r\nContent-Length: 3\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nX: a\x01\r\nContent-Length: 2\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: a\x01\r\n\r\nok", False),
    ],
)
def test_a_refused_response_that_is_all_there_needs_no_wait_for_the_end_of_its_connection(
    refused: bytes, is_complete: bool
) -> None:
    leaver, transport = left([refused], 9)
    assert leaver.failure is Failure.INVALID
    assert transport.closing is is_complete
    assert leaver.rest.ends == (["end"] if is_complete else [])
    assert not leaver.is_released


def test_a_connection_whose_next_write_must_fail_is_closed_with_a_reset() -> None:
    leaver, transport = left([], 0)
    leaver.connection.reset()
    assert transport.closing
    assert transport.linger == struct.pack("ii", 1, 0)
    leaver.connection.connection_lost(None)
    assert leaver.rest.ends == []


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\n"


@given(cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_what_follows_an_upgrade_that_was_asked_for_is_reported_as_it_is(cuts: list[int]) -> None:
    recorder: Any = Recorder()
    clock: Any = Clock()
    transport: Any = Transport()
    connection = ClientConnection(recorder, clock)
    connection.connection_made(transport)
    connection.start(recorder, b"GET / HTTP/1.1\r\n\r\n", b"", accepts_upgrade=True)
    for data in split(b"HTTP/1.1 103 Early Hints\r\n\r\n" + UPGRADED + BODY, cuts):
        connection.data_received(data)
    assert (recorder.status, recorder.announced, recorder.body) == (101, None, BODY)
    transport.sent = b""
    connection.send_data(b"0\r\n\r\n")
    connection.send_end()
    assert (transport.sent, transport.has_ended_input) == (b"0\r\n\r\n", True)
    assert not recorder.ends
    connection.eof_received()
    assert recorder.ends == 1
    assert not recorder.is_released


def test_an_upgrade_that_nobody_asked_for_is_no_response() -> None:
    assert received([UPGRADED]).failure is Failure.INVALID
