"""Recordings: what their followers get, in memory and in a file."""

import pytest

from gateway.requests.recording import MEMORY_BYTES, Recording, RecordingCursor, RecordingSpace
from tests.support.recorder import RecordedSpool, Script

PIECE = bytes(range(256)) * 128
"""32 KiB."""


class User:
    """Whose response is recorded."""

    def __init__(self) -> None:
        self.caught_up_count = self.failures = 0

    def caught_up(self) -> None:
        self.caught_up_count += 1

    def spool_failed(self) -> None:
        self.failures += 1


class Client:
    """A follower that may pause after each piece."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.is_slow = is_slow
        self.got = b""
        self.end = ""
        self.cursor: RecordingCursor | None = None

    def follow(self, recording: Recording, at: int = 0) -> "Client":
        self.cursor = recording.follow(self, at)
        self.cursor.pump()
        return self

    def recorded_head(self, recording: Recording) -> None:
        assert not self.end
        self.end = f"{recording.status}"

    def recorded_data(self, data: bytes) -> None:
        assert self.end == "200"
        self.got += data
        if self.is_slow and self.cursor is not None:
            self.cursor.pause()

    def recorded_end(self) -> None:
        self.end += " end"

    def recorded_broken(self) -> None:
        self.end += " broken"


class World:
    def __init__(self) -> None:
        self.spool = RecordedSpool(Script())
        self.space = RecordingSpace(self.spool.open)
        self.user = User()
        self.recording = Recording(self.space, self.user)

    def finish_files(self) -> None:
        while any(file.running is not None for file in self.spool.files):
            self.spool.finish()


def test_clients_that_come_at_any_time_get_the_same() -> None:
    world = World()
    recording = world.recording
    early = Client().follow(recording)
    recording.begin(200, [], None)
    recording.add(b"one ")
    middle = Client().follow(recording)
    recording.add(b"two")
    recording.finish()
    late = Client().follow(recording)
    tail = Client().follow(recording, 4)
    assert [c.got for c in (early, middle, late, tail)] == [b"one two"] * 3 + [b"two"]
    assert {c.end for c in (early, middle, late, tail)} == {"200 end"}
    assert recording.whole() == b"one two"
    assert not world.spool.files


@pytest.mark.parametrize("pieces", [3, 17, 30])
def test_a_long_response_goes_to_a_file_and_slow_clients_read_it_there(pieces: int) -> None:
    world = World()
    recording = world.recording
    fast, slow = Client().follow(recording), Client(is_slow=True).follow(recording)
    recording.begin(200, [], None)
    body = b""
    for number in range(pieces):
        data = b"%d" % number + PIECE
        body += data
        recording.add(data)
        if number % 5 == 4:
            world.finish_files()
    recording.finish()
    assert fast.got == body
    late = Client().follow(recording)
    for _ in range(200):
        world.finish_files()
        if slow.cursor is not None:
            slow.cursor.resume()
    assert slow.got == late.got == body
    assert slow.end == late.end == "200 end"
    assert recording.whole() is None
    recording.drop_when_left()
    assert world.space.memory_bytes == world.space.spool_bytes == 0
    assert all(file.is_closed for file in world.spool.files)


def test_only_the_disk_slows_the_writer_down() -> None:
    world = World()
    recording = world.recording
    Client(is_slow=True).follow(recording)
    recording.begin(200, [], None)
    while not recording.is_behind():
        assert recording.size < 2**20
        recording.add(PIECE)
    world.spool.finish()
    assert world.user.caught_up_count == 1
    assert not recording.is_behind()


def test_a_recording_that_is_dropped_serves_those_who_follow_it_to_the_end() -> None:
    world = World()
    recording = world.recording
    recording.begin(200, [], None)
    recording.add(b"x" * 100)
    recording.finish()
    slow = Client(is_slow=True)
    slow.cursor = recording.follow(slow)
    slow.cursor.pause()
    recording.drop_when_left()
    assert world.space.memory_bytes == 100
    slow.cursor.resume()
    slow.cursor.resume()
    assert slow.got == b"x" * 100
    assert world.space.memory_bytes == 0


@pytest.mark.parametrize("fails_at", ["write", "read"])
def test_a_disk_that_fails_breaks_every_client_and_says_so(fails_at: str) -> None:
    world = World()
    recording = world.recording
    recording.begin(200, [], None)
    recording.add(b"y" * (MEMORY_BYTES + 1))
    if fails_at == "read":
        world.spool.finish()
    client = Client().follow(recording)
    world.spool.finish(is_good=False)
    assert client.end.endswith("broken")
    assert world.user.failures == 1


def test_a_response_that_breaks_off_breaks_off_for_everybody() -> None:
    recording = World().recording
    before_head = Client().follow(recording)
    recording.break_off()
    assert before_head.end == " broken"
    recording = World().recording
    recording.begin(200, [], 10)
    client = Client().follow(recording)
    recording.add(b"half")
    recording.break_off()
    assert (client.got, client.end) == (b"half", "200 broken")
