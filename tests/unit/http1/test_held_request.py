"""A request that is held until something serves it."""

from http1.held_request import HeldRequest, in_steps
from tests.support.recorder import RecordedStream


class Held(HeldRequest):
    def __init__(self) -> None:
        super().__init__(self.leave)
        self.data = bytearray()
        self.server = RecordedStream()
        self.left = 0

    def leave(self) -> None:
        self.left += 1

    def serve(self) -> list[bytes | str]:
        self._pass_on(self.server, in_steps(self._drop()))
        return self.server.script

    def refuse(self) -> None:
        self._give_up()

    def _hold(self, data: bytes) -> None:
        self.data += data

    def _completed(self) -> None:
        pass

    def _drop(self) -> bytearray:
        held, self.data = self.data, bytearray()
        return held


def test_what_came_before_is_told_first_and_then_what_follows() -> None:
    held = Held()
    held.request_data(b"one ")
    held.first_part_end()
    held.pause_writing()
    held.request_data(b"two")
    script = held.serve()
    assert script == ["pause", b"one two", "first part end"]
    held.resume_writing()
    held.request_data(b"three")
    held.request_end()
    held.request_broken()
    assert script[3:] == ["resume", b"three", "end", "broken"]
    assert held.left == 0


def test_a_complete_request_has_no_first_part() -> None:
    held = Held()
    held.request_data(b"x" * 100_000)
    held.first_part_end()
    held.request_end()
    assert held.serve() == [b"x" * 65_536, b"x" * 34_464, "end"]


def test_nothing_is_held_of_a_request_that_nothing_serves() -> None:
    gone, refused = Held(), Held()
    for held in (gone, refused):
        held.request_data(b"x")
    gone.request_broken()
    refused.refuse()
    for held in (gone, refused):
        held.request_data(b"x")
        held.request_end()
        held.request_broken()
    assert (gone.data, refused.data) == (b"", b"")
    assert (gone.left, refused.left) == (1, 0)
