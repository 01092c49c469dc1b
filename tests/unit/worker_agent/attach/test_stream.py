"""The attach exchanges on a connection without a socket."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from http1.body import ChunkedBody
from http1.client.connection import ClientConnection
from tests.support.job_bench import Bench
from worker_agent.attach.stream import RestOfBody, StreamedPost
from worker_agent.job.machine import Job


class Transport:
    """Remembers whether it is read from."""

    is_read = True

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class Slow:
    """A job whose inference server is slow at once; also owner and clock of the connection."""

    rest: RestOfBody
    received = b""
    is_released = False
    is_over = False

    def rest_data(self, data: bytes) -> None:
        self.received += data
        self.rest.pause_reading()

    def rest_end(self) -> None:
        self.is_over = True

    def released(self, _: ClientConnection) -> None:
        self.is_released = True

    def time(self) -> float:
        return 1.0


def test_a_rest_that_came_in_one_read_leaves_its_connection_readable() -> None:
    slow: Any = Slow()
    transport: Any = Transport()
    connection = ClientConnection(slow, slow)
    connection.connection_made(transport)
    rest = slow.rest = RestOfBody(slow)
    assert rest.opened(connection, b"GET / HTTP/1.1\r\n\r\n")
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000)
    assert slow.received == b"x" * 20_000
    assert slow.is_released
    assert slow.is_over
    assert transport.is_read


EVENTS = [b"data: %d\n\n" % (10**n) for n in range(12)]
CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS]
HEAD = b"HTTP/1.1 200 OK\r\n"
RESPONSE = HEAD + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = RESPONSE + b"".join(CHUNKS) + b"0\r\n\r\n"
ENDS = [len(RESPONSE) + sum(map(len, CHUNKS[:n])) for n in range(len(CHUNKS) + 1)]


class Delivery:
    """A job with a response of events, and the POST that it opens."""

    post: StreamedPost
    head = b""

    def __init__(self) -> None:
        bench = Bench()
        bench.attach.stream = self.stream  # type: ignore[method-assign, assignment]
        self.to_gateway: Any = Transport()
        self.from_server: Any = Transport()
        owner: Any = Slow()
        self.gateway = ClientConnection(owner, owner)
        self.gateway.connection_made(self.to_gateway)
        self.server = ClientConnection(owner, owner)
        self.server.connection_made(self.from_server)
        self.job = bench.begin().job
        self.server.start(self.job, b"GET", b"")
        assert self.job.may_send(0.0)
        self.job.sent(self.server, 0.0)

    def stream(self, job: Job, head: bytes, total_bytes: int | None) -> StreamedPost:
        assert total_bytes is None
        self.post, self.head = StreamedPost(None, job), head  # type: ignore[arg-type]  # not asked
        return self.post

    def receive(self, reads: list[bytes], opened_after: int) -> None:
        """Let the response arrive; the POST's connection opens after some reads of it."""
        for number, data in enumerate(reads):
            self.server.data_received(data)
            if number == opened_after:
                self.open()
        if len(reads) <= opened_after:
            self.open()

    def open(self) -> None:
        if self.head:
            self.post.opened(self.gateway, b"", self.head, is_chunked=True)
            self.head = b""

    @property
    def sent(self) -> bytes:
        """The POST's whole body as the gateway decodes it."""
        body, wire = ChunkedBody(), b"".join(self.to_gateway.writes)
        decoded, at = body.take(wire, 0, len(wire))
        assert (at, body.is_complete) == (len(wire), True)
        return decoded


def test_an_event_goes_to_the_gateway_as_it_came_and_at_once() -> None:
    delivery = Delivery()
    delivery.receive([RESPONSE], 0)
    delivery.to_gateway.writes.clear()
    for chunk in CHUNKS:
        delivery.server.data_received(chunk)
        assert delivery.to_gateway.writes.pop() is chunk
        assert delivery.to_gateway.writes == []
    delivery.server.data_received(b"".join(CHUNKS))
    assert len(delivery.to_gateway.writes) == 1
    assert delivery.job.response_bytes == 2 * len(b"".join(EVENTS))


@given(
    st.lists(st.sampled_from(ENDS[1:-1])),
    st.lists(st.integers(len(RESPONSE), len(WHOLE) - 1), max_size=5),
    st.integers(0, 14),
)
def test_the_gateway_gets_the_same_body_however_the_reads_are_cut(
    ends: list[int], cuts: list[int], opened_after: int
) -> None:
    delivery = Delivery()
    bounds = sorted({0, len(RESPONSE), *ends, *cuts, len(WHOLE)})
    delivery.receive([WHOLE[a:b] for a, b in pairwise(bounds)], opened_after)
    delivery.open()
    assert delivery.sent == HEAD + b"\r\n" + b"".join(EVENTS)
    assert delivery.job.response_bytes == len(b"".join(EVENTS))
