"""What the channel of a worker does with its frames, and with their absence."""

import pytest

from gateway.attach.channels import MAX_SILENT, SILENT_S, WorkerChannels
from gateway.invocation.machine import Invocation
from gateway.invocation.states import DONE, Outcome
from tests.support.invocation_world import REQUEST_ID, VERSION, World
from tests.support.links import RecordedLink
from tests.support.recorder import RecordedQueue, Script
from wire.channel import (
    HEAD_BYTES,
    CallFrame,
    FrameError,
    Kind,
    channel_token,
    decode_count,
    encode_count,
    encode_frame,
    encode_queued_response,
    encode_response,
)

RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Process:
    """A process with a channel of one worker."""

    def __init__(self) -> None:
        self.now = 100.0
        self.live: dict[str, Invocation] = {}
        self.link = RecordedLink()
        self.channels = WorkerChannels(
            self.live,
            RecordedQueue(Script()),
            lambda: self.now,
            b"s" * 32,
            lambda: "key",
            lambda _: self.link,
        )
        token = self.channels.token("r", VERSION)
        self.channel = self.channels.open("r", VERSION, token, b"i")
        self.channels.linked(self.channel, self.link, is_resumed=False)

    def queue(self) -> World:
        """Let a call go through the queue."""
        world = World(channels=self.channels)
        world.invocation.request_end()
        self.live[REQUEST_ID] = world.invocation
        return world

    def send(self) -> World:
        """Let a call be sent over the channel."""
        self.receive(encode_count(Kind.SLOTS, self.channel.sent + 1))
        world = World(channels=self.channels)
        world.invocation.request_end()
        return world

    def receive(self, frame: bytes) -> None:
        self.channel.on_frame(frame[4], int.from_bytes(frame[5:13]), frame[HEAD_BYTES:])

    def end_turn(self) -> list[tuple[int, int, bytes]]:
        self.link.end_turn(self.channel)
        frames, self.link.frames = self.link.frames, []
        return frames

    def pass_time(self, seconds: float) -> list[int]:
        self.now += seconds
        self.channels.tick()
        return [kind for kind, _, _ in self.end_turn()]


def queued_response(response: bytes = RESPONSE) -> bytes:
    return encode_queued_response(REQUEST_ID.encode(), b"", 1000, response)


def test_the_response_to_a_queued_request_is_confirmed_in_the_same_turn() -> None:
    process = Process()
    world = process.queue()
    process.receive(queued_response())
    # One that comes twice, or too late, is confirmed as well.
    process.receive(queued_response())
    assert world.invocation.outcome is Outcome.ANSWERED
    ((kind, _, payload),) = process.end_turn()
    assert (kind, decode_count(payload)) == (Kind.CONFIRM, 2)
    assert process.pass_time(0.1) == []


def test_a_call_that_is_sent_in_the_same_turn_confirms_it() -> None:
    process = Process()
    process.queue()
    process.receive(queued_response())
    process.send()
    ((kind, _, payload),) = process.end_turn()
    assert (kind, CallFrame(payload).confirmed) == (Kind.CALL, 1)


def test_the_response_to_a_call_is_confirmed_within_a_tick() -> None:
    process = Process()
    process.send()
    process.receive(encode_response(1, b"", 1000, RESPONSE))
    assert [kind for kind, _, _ in process.end_turn()] == [Kind.CALL]
    assert process.pass_time(0.1) == [Kind.CONFIRM]
    assert process.pass_time(0.1) == []


def test_a_queued_request_with_an_invalid_response_fails_at_once() -> None:
    process = Process()
    world = process.queue()
    with pytest.raises(FrameError):
        process.receive(queued_response(b"no head"))
    assert world.invocation.state is DONE
    assert world.invocation.outcome is Outcome.WORKER_LOST


def test_a_worker_that_sends_but_receives_nothing_is_found_out() -> None:
    process = Process()
    process.send()
    assert process.end_turn()
    asked = 0
    for _ in range(MAX_SILENT):
        assert not process.link.is_aborted
        # It leases requests of the queue, and delivers their responses.
        process.receive(encode_count(Kind.SLOTS, 1))
        process.receive(queued_response())
        asked += process.pass_time(SILENT_S).count(Kind.PING)
    assert asked == MAX_SILENT - 1
    assert process.link.is_aborted


def test_a_call_knows_the_worker_that_says_it_has_leased_it() -> None:
    process = Process()
    world = process.queue()
    process.receive(encode_frame(Kind.LEASED, 0, REQUEST_ID.encode()))
    assert (world.invocation.instance, world.invocation.leased_at) == (b"i", 100.0)


def test_a_worker_that_opens_its_channel_has_leased_the_request_that_told_it_how() -> None:
    process = Process()
    world = process.queue()
    token = channel_token(b"s" * 32, REQUEST_ID, VERSION)
    process.channels.open(REQUEST_ID, VERSION, token, b"new")
    assert (world.invocation.instance, world.invocation.leased_at) == (b"new", 100.0)


def test_a_worker_that_responds_to_pings_may_take_its_time() -> None:
    process = Process()
    process.send()
    for _ in range(3 * MAX_SILENT):
        if Kind.PING in process.pass_time(SILENT_S):
            process.channel.on_frame(Kind.PONG, 0, b"")
    assert not process.link.is_aborted
