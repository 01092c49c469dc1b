"""A link reads a stream of replies and messages, however the socket cuts it."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueing.redis.errors import NotConnected, RedisError
from queueing.redis.link import Link, RedisOptions, Reply, is_too_old
from queueing.servers import Server
from runtime.tasks import spawn

SERVER = Server("127.0.0.1", 6379)


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: object) -> None:
        self.written += cast(bytes, data)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


def linked() -> tuple[Link, Wire]:
    """Return a link on a transport. Call it in a running loop."""
    link, wire = Link(SERVER, RedisOptions((SERVER,))), Wire()
    link.connection_made(wire)
    return link, wire


STREAM: Sequence[tuple[bytes, object]] = (
    (b"$5\r\nhello\r\n", b"hello"),
    (b">3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n", None),
    (b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$7\r\none\r\ntw\r\n", (b"c", b"one\r\ntw")),
    (b":42\r\n", 42),
    (b"_\r\n", None),
    (b"-BUSY Redis is busy\r\n", "BUSY"),
    (b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$0\r\n\r\n", (b"c", b"")),
    (b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", [1, [b"x"]]),
    (b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n", "moved"),
    (b"+OK\r\n", b"OK"),
)
"""What arrives, and what the link makes of it, in this order."""
WIRE = b"".join(data for data, _ in STREAM)


@given(st.lists(st.integers(0, len(WIRE)), max_size=12))
def test_any_split_of_a_stream_gives_the_same_replies_and_messages(cuts: list[int]) -> None:
    async def read() -> list[object]:
        link, _ = linked()
        seen: list[object] = []

        def replied(reply: Reply) -> None:
            seen.append(reply.kind if isinstance(reply, RedisError) else reply)  # type: ignore[attr-defined]

        link.on_message = lambda channel, payload: seen.append((channel, payload))
        link.on_unsubscribed = lambda _channel: seen.append("moved")
        link.send(b"", replied)
        link.subscribe(b"c", replied)
        for _ in range(5):
            link.send(b"", replied)
        at = 0
        for cut in [*sorted(cuts), len(WIRE)]:
            link.data_received(WIRE[at:cut])
            at = cut
        return seen

    assert asyncio.run(read()) == [expected for _, expected in STREAM]


async def test_a_cancelled_caller_leaves_its_reply_to_nobody() -> None:
    link, _ = linked()
    first = spawn(link.call(b"GET", b"a"), "first")
    await asyncio.sleep(0)
    first.cancel()
    second = spawn(link.call(b"GET", b"b"), "second")
    await asyncio.sleep(0)
    link.data_received(b"$5\r\nfirst\r\n$6\r\nsecond\r\n")
    assert await second == b"second"


async def test_a_lost_link_tells_every_caller_once_and_takes_no_more() -> None:
    link, _ = linked()
    seen: list[Reply] = []
    assert link.send(b"", seen.append)
    assert link.send(b"", seen.append)
    link.data_received(b":1\r\n")
    link.connection_lost(None)
    assert seen[0] == 1
    assert [type(reply) for reply in seen[1:]] == [NotConnected]
    assert not link.send(b"", seen.append)
    assert len(seen) == 2


async def test_replies_that_nobody_asked_for_end_the_link() -> None:
    for stream in (b":1\r\n", b"!nonsense\r\n"):
        link, wire = linked()
        link.data_received(stream)
        assert wire.is_aborted


async def test_what_is_sent_in_one_turn_is_one_write() -> None:
    link, wire = linked()
    for word in (b"a", b"b", b"c"):
        link.send(word, lambda _reply: None)
    assert wire.written == b""
    await asyncio.sleep(0)
    assert wire.written == b"abc"


@pytest.mark.parametrize(
    ("version", "is_old"),
    [("6.2.14", True), ("7.0.15", False), ("8.2.3", False), ("10.0.0", False), ("", False)],
)
def test_servers_without_sharded_messages_are_too_old(version: str, is_old: bool) -> None:
    assert is_too_old(version) is is_old


@pytest.mark.parametrize(
    ("server", "login"),
    [
        (SERVER, ("own", "word")),
        (SERVER._replace(user="other"), ("other", "word")),
        (SERVER._replace(password="key"), ("own", "key")),
    ],
)
def test_what_a_url_leaves_out_of_its_login_comes_from_the_settings(
    server: Server, login: tuple[str, str]
) -> None:
    assert RedisOptions((server,), user="own", password="word").credentials(server) == login
