"""A connection that carries frames, over real sockets: its writes, and how HTTP hands it over."""

import asyncio
import socket
from typing import Any

import pytest

from http1.framed import FramedConnection
from http1.server.limits import ServerLimits
from http1.server.listener import listen
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter
from tests.support.waiting import PATIENCE_S, Signal, until
from wire.channel import MAX_FRAME_BYTES, FrameError, FrameReader, Kind, encode_frame

REQUEST = b"GET /channel HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: frames\r\n\r\n"


class FrameEcho:
    """Sends every frame back; ``last`` follows the frames of each turn."""

    def __init__(self) -> None:
        self.link: FramedConnection
        self.numbers: list[int] = []
        self.lost: list[object] = []
        self.last = b""
        self.changed = Signal()

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.BUSY:
            raise FrameError("not understood")
        self.numbers.append(number)
        self.link.send(encode_frame(Kind.PONG, number, payload))
        self.changed.notify()

    def last_frame(self) -> bytes:
        return self.last

    def link_lost(self, link: object) -> None:
        self.lost.append(link)
        self.changed.notify()


class CountedTransport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""


def linked() -> tuple[FrameEcho, CountedTransport]:
    user, transport = FrameEcho(), CountedTransport()
    user.link = FramedConnection(user, asyncio.get_running_loop())
    user.link.connection_made(transport)
    return user, transport


async def test_what_is_sent_in_a_turn_is_written_once_with_the_last_frame_behind_it() -> None:
    user, transport = linked()
    frames = [encode_frame(Kind.PING, number) for number in range(3)]
    user.last = encode_frame(Kind.SLOTS, 9)
    user.link.data_received(b"".join(frames))
    assert transport.writes == []
    await asyncio.sleep(0)
    pongs = b"".join(encode_frame(Kind.PONG, number) for number in range(3))
    assert transport.writes == [pongs + user.last]
    await asyncio.sleep(0)
    assert len(transport.writes) == 1


async def test_a_turn_without_anything_to_say_writes_nothing() -> None:
    user, transport = linked()
    user.link.send_last()
    await asyncio.sleep(0)
    assert transport.writes == []
    user.last = b"frame"
    user.link.send_last()
    user.link.send_last()
    await asyncio.sleep(0)
    assert transport.writes == [b"frame"]


async def test_closing_writes_what_was_sent_and_a_lost_connection_nothing() -> None:
    user, transport = linked()
    user.link.send(b"one")
    user.link.close()
    assert (transport.writes, transport.is_closed) == ([b"one"], True)
    user.link.connection_lost(None)
    user.link.send(b"two")
    await asyncio.sleep(0)
    assert transport.writes == [b"one"]
    assert user.lost == [user.link]


@pytest.mark.parametrize("data", [encode_frame(Kind.BUSY, 1), b"\xff" * 13])
async def test_a_frame_that_is_not_valid_ends_the_connection(data: bytes) -> None:
    user, transport = linked()
    user.link.data_received(data)
    assert transport.is_closed


class UpgradedServer:
    """Hands every connection over after its first request."""

    def __init__(self) -> None:
        self.user = FrameEcho()

    def dispatch(self, request: Request, writer: ResponseWriter) -> RequestStream:
        self.user.link = FramedConnection(self.user, asyncio.get_running_loop())
        writer.hand_over([(b"connection", b"upgrade"), (b"upgrade", b"frames")], self.user.link)
        return IGNORED


@pytest.mark.parametrize("cut", [None, 10, len(REQUEST) - 2, len(REQUEST), len(REQUEST) + 5])
async def test_frames_right_behind_the_request_arrive(cut: int | None) -> None:
    server = UpgradedServer()
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    host, port = bound.getsockname()
    listener = await listen([bound], server.dispatch, ServerLimits())
    large = bytes(MAX_FRAME_BYTES)
    data = REQUEST + encode_frame(Kind.PING, 1) + encode_frame(Kind.PING, 2, large)
    found: list[tuple[int, int, int]] = []
    try:
        reader, writer = await asyncio.open_connection(host, port)
        if cut is not None:
            writer.write(data[:cut])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(data[cut or 0 :])
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"upgrade: frames\r\n" in head
            frames = FrameReader()
            while len(found) < 2:
                frames.feed(
                    await reader.read(65_536),
                    lambda kind, number, payload: found.append((kind, number, len(payload))),
                )
        assert found == [(Kind.PONG, 1, 0), (Kind.PONG, 2, MAX_FRAME_BYTES)]
        # It is no connection of the HTTP server any more, and no timeout of it ends it.
        assert listener.connections == 0
        writer.close()
        await until(lambda: server.user.lost, changed=server.user.changed)
    finally:
        listener.abort_all()
