"""When the slot of a request that nobody waits for is free."""

from http1.stream import NO_TRAILERS, Failure, ResponseStream
from worker_agent.inference.discards import DiscardedResponse, Discards

GRACE_S = 60.0


class Writer:
    """The request; ``stream`` is what its response goes to."""

    trailers = NO_TRAILERS

    def __init__(self) -> None:
        self.stream: ResponseStream | None = None
        self.discards = 0
        self.is_reset = False

    def discard(self, response_stream: ResponseStream) -> None:
        self.stream = response_stream
        self.discards += 1

    def reset(self) -> None:
        self.is_reset = True

    def send_data(self, data: bytes) -> None: ...

    def send_end(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.ended = 0
        self.unresponsive = 0
        self.discards = Discards(GRACE_S, lambda: self.now, self.note_unresponsive)
        self.writer = Writer()
        self.discards.add(self.writer, self.note_end)
        assert isinstance(self.writer.stream, DiscardedResponse)
        self.response: DiscardedResponse = self.writer.stream

    def note_end(self) -> None:
        self.ended += 1

    def note_unresponsive(self) -> None:
        self.unresponsive += 1

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.discards.sweep()


def test_a_response_that_ends_frees_its_slot_once() -> None:
    for end in (
        lambda response: response.response_end(),
        lambda response: response.response_whole(200, [], 2, b"{}"),
        lambda response: response.response_broken(Failure.CLOSED, is_stale=False),
        lambda response: response.response_broken(Failure.RESET, is_stale=False),
    ):
        world = World()
        world.later(GRACE_S - 1)
        assert world.ended == 0
        end(world.response)
        assert world.ended == 1
        world.later(2 * GRACE_S)
        assert (world.ended, world.unresponsive, world.writer.is_reset) == (1, 0, False)


def test_a_server_that_shows_no_sign_loses_the_connection_after_the_grace() -> None:
    world = World()
    world.later(GRACE_S)
    assert (world.ended, world.unresponsive, world.writer.is_reset) == (1, 1, True)


def test_a_server_that_goes_on_writing_keeps_its_slot_until_it_is_done() -> None:
    world = World()
    for _ in range(5):
        world.later(GRACE_S / 6)
        world.response.response_data(b"x")
    assert (world.ended, world.writer.is_reset) == (0, False)
    world.response.response_end()
    assert world.ended == 1


def test_a_server_that_never_stops_writing_is_reset_after_the_grace_and_not_doubted() -> None:
    world = World()
    world.response.response_head(200, [], None)
    world.later(GRACE_S)
    assert (world.ended, world.unresponsive, world.writer.is_reset) == (1, 0, True)


def test_what_is_not_http_keeps_the_slot_until_the_connection_ends() -> None:
    world = World()
    world.response.response_broken(Failure.INVALID, is_stale=False)
    assert (world.ended, world.writer.discards) == (0, 2)
    world.response.response_broken(Failure.CLOSED, is_stale=False)
    assert world.ended == 1
