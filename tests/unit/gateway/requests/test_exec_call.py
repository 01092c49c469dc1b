"""A call inside an envelope, from the bytes of the envelope to the request inside."""

import pytest

from gateway.errors import BodyTooLarge, GatewayError, TooManyBodies
from gateway.requests.exec_body import MAX_REQUEST_BYTES, ExecRequest
from gateway.requests.exec_call import MAX_HELD_BYTES, ExecCall, HeldBytes
from http1.stream import Request, RequestStream
from tests.support.recorder import RecordedStream


class World:
    def __init__(self, body_bytes: int | None = None, *, fails: bool = False) -> None:
        self.held = HeldBytes()
        self.called = RecordedStream()
        self.fails = fails
        self.inner: list[tuple[Request, ExecRequest]] = []
        self.refused: list[int] = []
        self.left = 0
        headers = [
            (b"host", b"api"),
            (b"content-length", b"99"),
            (b"content-type", b"application/json; charset=utf-8"),
            (b"accept", b"text/event-stream"),
            (b"accept-encoding", b"gzip, br"),
            (b"x-own", b"1"),
        ]
        request = Request(b"POST", b"/v2/nvcf/exec", b"api", headers, body_bytes, 1.0)
        self.call = ExecCall(request, self.held, self.begin, self.refuse, self.leave)

    def begin(self, request: Request, inner: ExecRequest) -> RequestStream:
        if self.fails:
            raise TooManyBodies
        self.inner.append((request, inner))
        return self.called

    def refuse(self, error: GatewayError) -> None:
        self.refused.append(error.status)

    def leave(self) -> None:
        self.left += 1


def test_the_function_gets_what_is_inside() -> None:
    world = World()
    world.call.request_data(b'{"requestBody":')
    world.call.first_part_end()
    world.call.pause_writing()
    world.call.request_data(b'{"a":1}}')
    assert world.held.count == 23
    world.call.request_end()
    assert world.held.count == 0
    ((request, _),) = world.inner
    assert request.headers == [
        (b"host", b"api"),
        (b"x-own", b"1"),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"identity"),
        (b"content-type", b"application/json"),
        (b"content-length", b"7"),
    ]
    assert (request.body_bytes, request.values[b"content-length"]) == (7, b"7")
    assert world.called.script == ["pause", b'{"a":1}', "end"]
    world.call.request_broken()
    assert world.called.script[-1] == "broken"
    assert world.left == 0


def test_what_cannot_be_called_is_refused_once() -> None:
    for data, fails, status in ((b"{", False, 400), (b'{"requestBody":1}', True, 503)):
        world = World(fails=fails)
        world.call.request_data(data)
        world.call.request_end()
        world.call.request_broken()
        assert (world.refused, world.left, world.held.count) == ([status], 0, 0)


def test_an_envelope_has_a_largest_size() -> None:
    with pytest.raises(BodyTooLarge):
        World(MAX_REQUEST_BYTES + 1)
    world = World()
    world.call.request_data(b"x" * (MAX_REQUEST_BYTES + 1))
    world.call.request_data(b"x")
    world.call.request_end()
    assert (world.refused, world.held.count) == ([413], 0)


def test_what_a_process_holds_is_bounded() -> None:
    world = World()
    world.held.count = MAX_HELD_BYTES
    world.call.request_data(b"x")
    assert (world.refused, world.held.count) == ([503], MAX_HELD_BYTES)


def test_a_client_that_leaves_early_has_made_no_call() -> None:
    world = World()
    world.call.request_data(b"x")
    world.call.request_broken()
    assert (world.left, world.refused, world.held.count) == (1, [], 0)
