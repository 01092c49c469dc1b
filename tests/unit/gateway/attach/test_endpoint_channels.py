"""How workers open channels, and open them again."""

from typing import Any

import pytest

from gateway.attach.channels import FORGET_S, GRACE_S, WorkerChannels
from gateway.attach.endpoint import AttachEndpoint
from gateway.errors import BadRequest, MethodNotAllowed, NotFound, Unauthenticated
from gateway.invocation.states import DONE, QUEUED
from http1.stream import Request
from tests.support.invocation_world import REQUEST_ID, VERSION, World
from tests.support.links import RecordedLink
from tests.support.recorder import RecordedQueue, RecordedResponseWriter, Script
from wire.channel import FrameUser, Kind, encode_count, encode_running
from wire.headers import NVCF_CHANNEL_KEY
from wire.worker_api import CHANNEL_PATH

OTHER_VERSION = "99999999-9999-4999-8999-999999999999"
HEAD_BYTES = 13


class OpeningWriter(RecordedResponseWriter):
    """Records to what the connection is handed over."""

    headers: dict[bytes, bytes]

    def hand_over(self, headers: list[tuple[bytes, bytes]], successor: object) -> None:
        self.headers = dict(headers)
        self.successor = successor


class Attached:
    """An endpoint with channels, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.endpoint = AttachEndpoint(lambda: self.now)
        self.links: list[RecordedLink] = []
        keys = iter(range(1, 100))
        self.channels = WorkerChannels(
            self.endpoint.live,
            RecordedQueue(Script()),
            lambda: self.now,
            b"s" * 32,
            lambda: f"key-{next(keys)}",
            self._new_link,
        )
        self.endpoint.channels = self.channels

    def _new_link(self, user: FrameUser) -> RecordedLink:
        self.links.append(RecordedLink())
        return self.links[-1]

    def ask(self, method: bytes = b"GET", **changes: Any) -> str:
        """Ask for a channel and return its key; ``changes`` of headers, None: left out."""
        headers = {
            "upgrade": "nvcf-channel/1",
            "authorization": "Bearer " + self.channels.token(REQUEST_ID, VERSION),
            "nvcf-reqid": REQUEST_ID,
            "function-version-id": VERSION,
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        pairs = [(k.encode(), v.encode()) for k, v in headers.items() if v is not None]
        writer = OpeningWriter(Script(), "worker")
        self.endpoint.serve_channel(
            Request(method, CHANNEL_PATH, b"gateway", pairs, 0, self.now), writer
        )
        return writer.headers[NVCF_CHANNEL_KEY].decode()

    def resume(self, key: str) -> str:
        return self.ask(authorization=f"Bearer {key}", nvcf_reqid=None)

    def send(self) -> World:
        world = World(channels=self.channels)
        world.invocation.request_end()
        return world

    def break_link(self, key: str) -> None:
        channel = self.channels.resume(key)
        channel.link = self.links[-1]
        channel.link_lost(self.links[-1])


def test_the_token_of_an_envelope_opens_one_channel() -> None:
    attached = Attached()
    assert attached.ask()
    assert len(attached.channels) == 1
    with pytest.raises(Unauthenticated):
        attached.ask()
    assert len(attached.channels) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"authorization": "Bearer "},
        {"authorization": "Bearer \xff".encode().decode("latin-1")},
        {"authorization": None},
        {"function_version_id": OTHER_VERSION},
        {"function_version_id": None},
        {"nvcf_reqid": "33333333-3333-4333-8333-333333333333"},
        {"nvcf_reqid": None},
    ],
)
def test_nothing_else_opens_one(changes: dict[str, str | None]) -> None:
    attached = Attached()
    with pytest.raises(Unauthenticated):
        attached.ask(**changes)
    assert len(attached.channels) == 0


@pytest.mark.parametrize("upgrade", [None, "websocket", "nvcf-channel/2"])
def test_a_request_without_the_upgrade_is_refused(upgrade: str | None) -> None:
    attached = Attached()
    with pytest.raises(BadRequest):
        attached.ask(upgrade=upgrade)
    # Its token has not been used.
    assert attached.ask()


def test_only_get_opens_one_and_only_where_channels_are() -> None:
    attached = Attached()
    with pytest.raises(MethodNotAllowed):
        attached.ask(b"POST")
    attached.endpoint.channels = None
    with pytest.raises(NotFound):
        attached.ask()


def test_a_channel_is_opened_again_with_its_key() -> None:
    attached = Attached()
    key = attached.ask()
    assert attached.resume(key) == key
    first, second = attached.links
    assert first.is_aborted
    assert second.kinds == [Kind.CONFIRM]
    with pytest.raises(Unauthenticated):
        attached.resume("key-2")


def test_what_the_worker_does_not_name_is_published_and_what_nobody_wants_is_cancelled() -> None:
    attached = Attached()
    key = attached.ask()
    channel = attached.channels.resume(key)
    attached.channels.linked(channel, attached.links[0], is_resumed=False)
    channel.on_frame(Kind.SLOTS, 0, encode_count(Kind.SLOTS, 4)[HEAD_BYTES:])
    arrived, left, lost = attached.send(), attached.send(), attached.send()
    channel.link_lost(attached.links[0])
    left.invocation.request_broken()
    attached.resume(key)
    # The last call that was sent is named: from it on the worker counts.
    assert attached.links[-1].frames == [(Kind.CONFIRM, 3, bytes(8))]
    channel.on_frame(Kind.RUNNING, 2, encode_running(2, [1, 2])[HEAD_BYTES:])
    assert attached.links[-1].frames[1:] == [(Kind.CANCEL, 2, b"")]
    assert (left.invocation.state, lost.invocation.state) == (DONE, QUEUED)
    # It had not arrived: that was no run.
    assert lost.queue.runs == 0
    assert arrived.invocation.state is not QUEUED


def test_a_worker_that_comes_too_late_for_its_calls_is_told_to_stop_them() -> None:
    attached = Attached()
    key = attached.ask()
    channel = attached.channels.resume(key)
    attached.channels.linked(channel, attached.links[0], is_resumed=False)
    channel.on_frame(Kind.SLOTS, 0, encode_count(Kind.SLOTS, 4)[HEAD_BYTES:])
    world = attached.send()
    channel.link_lost(attached.links[0])
    attached.now += GRACE_S
    attached.channels.tick()
    assert world.invocation.state is QUEUED
    assert world.queue.runs == 1
    attached.resume(key)
    channel.on_frame(Kind.RUNNING, 1, encode_running(1, [1])[HEAD_BYTES:])
    assert attached.links[-1].frames[1:] == [(Kind.CANCEL, 1, b"")]
    channel.link_lost(attached.links[-1])
    attached.now += FORGET_S
    attached.channels.tick()
    assert len(attached.channels) == 0
    with pytest.raises(Unauthenticated):
        attached.resume(key)
