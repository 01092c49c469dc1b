"""POST attach against a real invocation, without sockets."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attach.endpoint import AttachEndpoint
from gateway.errors import MethodNotAllowed, Unauthenticated
from gateway.invocation.states import Outcome
from http1.body import ChunkedBody
from http1.server.limits import ServerLimits
from http1.stream import Request, RequestStream, ResponseWriter
from tests.support.edge_harness import Harness
from tests.support.invocation_world import World
from tests.support.recorder import RecordedResponseWriter

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
PATH = b"/v2/nvcf/worker/request-attach"


class Meeting:
    """A published invocation, and a worker that meets it."""

    def __init__(self, method: bytes = b"GET") -> None:
        self.world = World(method=method).publish()
        self.endpoint = AttachEndpoint(lambda: self.world.now)
        self.endpoint.response_tokens.issue("response-token", self.world.invocation)
        self.worker = RecordedResponseWriter(self.world.script, "worker")

    def post(self, body_bytes: int | None, *more: tuple[bytes, bytes]) -> RequestStream:
        headers = [(b"authorization", b"Bearer response-token"), *more]
        request = Request(b"POST", PATH, b"gateway", headers, body_bytes, 0.0)
        return self.endpoint.serve(request, self.worker)


def test_a_whole_response_in_one_read_reaches_the_client_and_the_worker_gets_200() -> None:
    meeting = Meeting()
    data = HEAD + b"\r\nhello"
    post = meeting.post(len(data), (b"nvcf-leased-us", b"2500"))
    post.request_data(data)
    post.request_end()
    assert meeting.world.client.sent == b"hello"
    assert meeting.world.client.head is not None
    assert meeting.world.client.head[2] == 5
    assert meeting.worker.head == (200, [], 0)
    assert meeting.world.invocation.worker_s == 0.0025


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (b"inference-lost", Outcome.INFERENCE_LOST),
        (b"inference-invalid", Outcome.INFERENCE_INVALID),
        (b"worker", Outcome.WORKER_FAILED),
        (b"unheard-of", Outcome.ANSWERED),
    ],
)
def test_a_worker_says_who_it_is_and_that_the_response_is_its_own(
    fault: bytes, outcome: Outcome
) -> None:
    meeting = Meeting()
    data = HEAD + b"\r\nhello"
    post = meeting.post(len(data), (b"nvcf-instance-id", b"i" * 999), (b"nvcf-fault", fault))
    post.request_data(data)
    post.request_end()
    assert meeting.world.invocation.instance == b"i" * 128
    assert meeting.world.invocation.outcome is outcome


@pytest.mark.parametrize(
    ("instance", "outcome"),
    [([], Outcome.INFERENCE_LOST), ([(b"nvcf-instance-id", b"i-1")], Outcome.ANSWERED)],
)
def test_a_problem_document_tells_it_only_of_a_worker_that_does_not_say_who_it_is(
    instance: list[tuple[bytes, bytes]], outcome: Outcome
) -> None:
    meeting = Meeting()
    data = (
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/problem+json\r\n\r\n"
        b'{"type":"urn:inference-connection:problem-details:internal-server-error"}'
    )
    post = meeting.post(len(data), *instance)
    post.request_data(data)
    post.request_end()
    assert meeting.world.invocation.outcome is outcome


def test_a_worker_that_responds_after_another_ones_fault_broke_off_is_believed() -> None:
    meeting = Meeting()
    meeting.post(None, (b"nvcf-fault", b"worker")).request_broken()
    meeting.endpoint.response_tokens.issue("response-token", meeting.world.invocation)
    data = HEAD + b"\r\nhello"
    post = meeting.post(len(data))
    post.request_data(data)
    post.request_end()
    assert meeting.world.invocation.outcome is Outcome.ANSWERED


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_head_in_small_pieces_is_read_all_the_same(size: int) -> None:
    meeting = Meeting()
    data = HEAD + b"\r\nhello"
    post = meeting.post(len(data))
    for at in range(0, len(data), size):
        post.request_data(data[at : at + size])
    post.request_end()
    assert meeting.world.client.sent == b"hello"
    assert meeting.world.client.head is not None
    assert meeting.world.client.head[2] == 5


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200 OK"), (b"GET", b"304 Not Modified")]
)
@pytest.mark.parametrize("is_slow", [False, True])
def test_a_post_that_announces_a_body_which_its_response_has_not_is_complete_with_the_head(
    method: bytes, status: bytes, is_slow: bool
) -> None:
    """NVCF's worker closes the connection in place of the body (`docs/wire.md` §5.3)."""
    meeting = Meeting(method)
    meeting.world.client.is_slow = is_slow
    head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 1234\r\n\r\n"
    post = meeting.post(len(head) + 1234)
    post.request_data(head[:20])
    post.request_data(head[20:])
    post.request_broken()
    if is_slow:
        meeting.world.invocation.resume_writing()
    assert meeting.world.client.head is not None
    assert meeting.world.client.head[2] == 1234
    assert meeting.world.invocation.outcome is Outcome.ANSWERED
    assert "client.abort" not in meeting.world.script.lines


def test_the_trailers_of_a_post_are_the_responses_without_what_must_not_come_so_late() -> None:
    meeting = Meeting()
    post = meeting.post(None)
    post.request_data(HEAD + b"\r\nhello")
    post.request_trailers(
        [(b"x-sum", b"1"), (b"set-cookie", b"a=1"), (b"nvcf-status", b"errored"), (b"te", b"x")]
    )
    post.request_end()
    assert "client.trailers [(b'x-sum', b'1')]" in meeting.world.script.lines
    assert meeting.world.client.sent == b"hello"


def test_an_unknown_length_stays_unknown() -> None:
    meeting = Meeting()
    post = meeting.post(None)
    post.request_data(HEAD + b"\r\n")
    assert meeting.world.client.head is not None
    assert meeting.world.client.head[2] is None
    assert "worker.head 200" not in meeting.world.script.lines


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (HEAD, 400),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 257 + b"\r\n", 431),
    ],
)
def test_what_is_no_response_is_refused_and_the_client_gets_502(data: bytes, status: int) -> None:
    meeting = Meeting()
    post = meeting.post(None)
    post.request_data(data)
    post.request_end()
    assert meeting.worker.head is not None
    assert meeting.worker.head[0] == status
    document = json.loads(meeting.worker.sent)
    assert document["status"] == status
    assert document["instance"] == PATH.decode()
    assert document["requestId"] == meeting.world.invocation.request_id
    assert meeting.world.client.head is not None
    assert meeting.world.client.head[0] == 502


def test_backpressure_reaches_the_worker_until_it_has_sent_all() -> None:
    meeting = Meeting()
    post = meeting.post(None)
    post.request_data(HEAD + b"\r\n")
    meeting.world.script.take()
    meeting.world.invocation.pause_writing()
    meeting.world.invocation.resume_writing()
    assert meeting.world.script.take() == ["worker.pause", "worker.resume"]
    meeting.world.client.is_slow = True
    post.request_end()
    meeting.world.invocation.pause_writing()
    assert meeting.world.script.take() == []


def test_a_client_that_left_answers_the_worker_early() -> None:
    meeting = Meeting()
    post = meeting.post(None)
    post.request_data(HEAD + b"\r\n")
    meeting.world.invocation.request_broken()
    assert meeting.worker.head == (200, [], 0)
    post.request_data(b"late")
    post.request_end()


def test_a_token_is_issued_again_only_by_the_registry() -> None:
    meeting = Meeting()
    post = meeting.post(None)
    with pytest.raises(Unauthenticated):
        meeting.post(None)
    post.request_broken()
    assert meeting.world.script.take() == ["registry.renew"]


def test_any_other_method_is_refused() -> None:
    meeting = Meeting()
    request = Request(b"PUT", PATH, b"gateway", [], 0, 0.0)
    with pytest.raises(MethodNotAllowed):
        meeting.endpoint.serve(request, meeting.worker)


# Events, from the worker's connection to the client's

EVENTS = [b"data: %d\n\n" % (10**n) for n in range(12)]
CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


class Path:
    """A client's connection and that of the worker which responds to its request."""

    world: World

    def __init__(self, request_line: bytes) -> None:
        self.edge = Harness(ServerLimits(high_water_bytes=100))
        self.edge.connections.dispatch = self.begin
        self.edge.feed(request_line + b"\r\nHost: h\r\n\r\n")
        endpoint = AttachEndpoint(lambda: self.world.now)
        endpoint.response_tokens.issue("response-token", self.world.invocation)
        self.attach = Harness()
        self.attach.connections.dispatch = endpoint.serve
        self.attach.feed(
            b"POST %b HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer response-token\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" % PATH
        )

    def begin(self, request: Request, writer: ResponseWriter) -> RequestStream:
        self.world = World(method=request.method, client=writer)
        return self.world.invocation

    def receive(self, *reads: bytes) -> "Path":
        for data in reads:
            self.attach.feed(data)
            self.edge.loop.run()
        return self

    def body(self) -> bytes:
        """Return the body as the client decodes it, all of it."""
        head, _, wire = self.edge.transport.written.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head:
            return wire
        body = ChunkedBody()
        decoded, at = body.take(wire, 0, len(wire))
        assert (at, body.is_complete) == (len(wire), True)
        return decoded


def begun() -> Path:
    path = Path(b"GET / HTTP/1.1")
    path.receive(b"%x\r\n%b\r\n" % (len(STREAM_HEAD), STREAM_HEAD))
    assert b"transfer-encoding: chunked" in path.edge.transport.written
    path.edge.transport.written = b""
    path.edge.transport.writes = 0
    return path


def test_an_event_goes_to_the_client_as_it_came_in_the_same_turn() -> None:
    path = begun()
    for number, chunk in enumerate(CHUNKS):
        path.attach.protocol.data_received(chunk)
        assert path.edge.transport.writes == number + 1
    assert path.edge.transport.written == b"".join(CHUNKS)
    assert path.world.invocation.response_bytes == len(b"".join(EVENTS))


def test_several_events_in_one_read_are_one_write() -> None:
    path = begun()
    path.attach.protocol.data_received(b"".join(CHUNKS))
    assert path.edge.transport.writes == 1
    path.receive(b"0\r\n\r\n")
    assert path.edge.transport.written.endswith(b"0\r\n\r\n")


def test_a_client_that_reads_slowly_holds_the_events_back_and_gets_all_of_them() -> None:
    path = begun()
    path.edge.transport.is_stuck = True
    many = CHUNKS * 2
    for chunk in many:
        path.attach.protocol.data_received(chunk)
    assert path.edge.transport.buffered < len(b"".join(many))
    assert path.attach.protocol.held_bytes
    path.edge.transport.drain()
    path.receive(b"0\r\n\r\n")
    assert path.edge.transport.written.endswith(b"0\r\n\r\n")
    assert path.world.invocation.response_bytes == len(b"".join(EVENTS)) * 2
    assert path.world.invocation.outcome is Outcome.ANSWERED


def test_a_client_that_leaves_between_two_events_ends_the_post() -> None:
    path = begun()
    path.receive(CHUNKS[0])
    path.edge.transport.abort()
    path.edge.loop.run()
    assert path.world.invocation.outcome is Outcome.CLIENT_GONE
    path.receive(*CHUNKS[1:])
    assert path.attach.status() == b"200"
    assert path.edge.transport.written == CHUNKS[0]


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD / HTTP/1.1"])
@pytest.mark.parametrize("length", [b"", b"content-length: %d\r\n" % len(b"".join(EVENTS))])
@given(
    st.lists(st.integers(0, len(CHUNKS)), max_size=12).map(sorted),
    st.lists(st.integers(0, 600), max_size=5),
)
def test_the_client_gets_the_same_body_however_the_reads_are_cut(
    request_line: bytes, length: bytes, joins: list[int], cuts: list[int]
) -> None:
    head = STREAM_HEAD[:-2] + length + b"\r\n"
    pieces = [b"%x\r\n%b\r\n" % (len(head), head), *CHUNKS]
    wire = b"".join(pieces) + b"0\r\n\r\n"
    ends = [sum(map(len, pieces[: n + 1])) for n in joins]
    bounds = sorted({0, *ends, *(cut for cut in cuts if cut < len(wire)), len(wire)})
    path = Path(request_line).receive(*[wire[a:b] for a, b in pairwise(bounds)])
    assert path.body() == (b"" if request_line.startswith(b"HEAD") else b"".join(EVENTS))
    assert path.world.invocation.outcome is Outcome.ANSWERED
    assert path.attach.status() == b"200"
