"""How many calls workers have over channels, until they are over, and which calls they get."""

from gateway.attach.channels import FIND_EVERY, WorkerChannel, WorkerChannels
from gateway.invocation.machine import Invocation
from tests.support.invocation_world import VERSION, World
from tests.support.links import RecordedLink
from tests.support.recorder import RecordedPost, RecordedQueue, Script
from wire.channel import FrameUser, Kind, encode_count


class Process:
    """A process with a channel of one worker that has ``slots``."""

    def __init__(self, slots: int = 8) -> None:
        self.live: dict[str, Invocation] = {}
        self.channels = WorkerChannels(
            self.live, RecordedQueue(Script()), lambda: 100.0, b"s" * 32, lambda: "key", self._link
        )
        token = self.channels.token("r", VERSION)
        self.channel: WorkerChannel = self.channels.open("r", VERSION, token, b"i")
        self.channels.linked(self.channel, RecordedLink(), is_resumed=False)
        self.channel.on_frame(Kind.SLOTS, 0, encode_count(Kind.SLOTS, slots)[13:])

    def _link(self, user: FrameUser) -> RecordedLink:
        return RecordedLink()

    def send(self) -> World:
        world = World(channels=self.channels)
        world.invocation.request_end()
        return world


def test_a_call_counts_until_its_response_is_over() -> None:
    process = Process()
    sent, streamed = process.send(), process.send()
    assert process.channels.running() == {VERSION: 2}
    assert dict(process.channels.slots()) == {VERSION: 6}
    streamed.invocation.attached(RecordedPost(streamed.script), 100.0, 0.1)
    streamed.head()
    process.channels.tick()
    assert process.channels.running() == {VERSION: 2}
    streamed.invocation.response_end()
    sent.invocation.request_broken()
    assert process.channels.running() == {}
    process.channels.tick()
    assert process.channels.responding == []


def test_now_and_then_a_call_looks_for_workers_without_a_channel() -> None:
    channels = Process(slots=8).channels
    # Every worker has a channel: no call has to go another way.
    assert all(channels.has_free(VERSION, 8) for _ in range(10 * FIND_EVERY))
    # Another worker has come. Each call that goes through the queue has a token for a channel.
    decisions = []
    for _ in range(4 * FIND_EVERY):
        is_sent = channels.has_free(VERSION, 16)
        decisions.append(is_sent)
        assert is_sent or channels.token("r", VERSION)
    assert decisions.count(False) == 4
