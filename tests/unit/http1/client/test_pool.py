"""Which connections of a pool may carry another request, without a socket."""

import asyncio
import os
import socket
from collections.abc import Callable

import pytest

from http1.client.connection import ClientConnection
from http1.client.pool import SHOWN_FOR_S, Pool
from http1.stream import NullResponseStream
from runtime.tasks import spawn
from tests.support.waiting import until
from tests.unit.http1.client.transport import Transport


class Socketless(Transport):
    def get_extra_info(self, name: str) -> None:  # type: ignore[override]
        """There is no socket whose peer could be watched."""


async def test_the_connection_of_an_awaited_status_is_nobody_elses() -> None:
    opened: list[ClientConnection] = []

    async def connect(factory: Callable[[], asyncio.Protocol]) -> None:
        connection = factory()
        assert isinstance(connection, ClientConnection)
        connection.connection_made(Socketless())  # type: ignore[arg-type]
        opened.append(connection)

    pool = Pool(connect, idle_s=60, max_idle=2, connect_timeout_s=5)
    asked = spawn(pool.status_of(b"POST / HTTP/1.1\r\n\r\n", 5), "status")
    await until(lambda: opened and opened[0].response_stream, what="the request")
    # All of it in one turn of the loop: the waiter has not run when another request comes.
    opened[0].data_received(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert pool.take() is None
    assert await asked == 204


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"


class Kept:
    """A pool, whose connections idle for as long as the test says."""

    def __init__(self, idle_s: float = 4.0) -> None:
        self.is_refused = False
        self.pool = Pool(self._connect, idle_s=idle_s, max_idle=9, connect_timeout_s=5)

    async def _connect(self, factory: Callable[[], asyncio.Protocol]) -> None:
        if self.is_refused:
            raise ConnectionRefusedError
        factory().connection_made(Socketless())  # type: ignore[arg-type]

    async def idle(self, for_s: float, more: bytes = b"") -> ClientConnection:
        """Return a connection whose response ended ``for_s`` seconds ago."""
        connection = await self.pool.connect()
        connection.start(NullResponseStream(), b"GET / HTTP/1.1\r\n\r\n", b"")
        connection.data_received(OK + more + b"\r\n")
        connection.idle_since -= for_s
        return connection


@pytest.mark.parametrize(
    ("said", "idle_s", "is_kept"),
    [
        (b"", 3.9, True),
        (b"", 4.1, False),
        (b"Keep-Alive: timeout=2\r\n", 1.4, True),
        (b"Keep-Alive: timeout=2\r\n", 1.6, False),
        (b"Keep-Alive: timeout=5\r\n", 3.9, True),
        (b"Keep-Alive: timeout=5\r\n", 4.1, False),
        (b"Keep-Alive: timeout=75\r\n", 3.9, True),
        (b"Keep-Alive: timeout=0\r\n", 0.0, False),
    ],
)
@pytest.mark.parametrize("by_sweep", [False, True])
async def test_a_connection_is_kept_no_longer_than_its_server_says(
    said: bytes, idle_s: float, is_kept: bool, by_sweep: bool
) -> None:
    kept = Kept()
    connection = await kept.idle(idle_s, said)
    if by_sweep:
        kept.pool.sweep()
    assert kept.pool.take() is (connection if is_kept else None)


async def test_a_connection_is_kept_no_longer_than_its_server_has_shown() -> None:
    kept = Kept()
    closed = await kept.idle(2.0)
    closed.connection_lost(None)
    await kept.idle(1.6)
    assert kept.pool.take() is None
    connection = await kept.idle(1.4)
    assert kept.pool.take() is connection


async def test_a_request_that_met_the_close_shows_the_idle_time_too() -> None:
    kept = Kept()
    closed = await kept.idle(2.0)
    assert kept.pool.take() is closed
    closed.start(NullResponseStream(), b"POST / HTTP/1.1\r\n\r\n", b"")
    closed.connection_lost(ConnectionResetError())
    await kept.idle(1.6)
    assert kept.pool.take() is None


async def test_a_server_that_restarts_shows_nothing() -> None:
    kept = Kept()
    (await kept.idle(0.1)).connection_lost(None)
    (await kept.idle(1.0)).connection_lost(None)
    kept.is_refused = True
    with pytest.raises(ConnectionRefusedError):
        await kept.pool.connect()
    kept.is_refused = False
    connection = await kept.idle(3.0)
    assert kept.pool.take() is connection


async def test_what_a_server_has_shown_counts_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    kept = Kept()
    (await kept.idle(1.0)).connection_lost(None)
    later = loop.time() + SHOWN_FOR_S + 1.0
    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", lambda: later)
        kept.pool.sweep()
    connection = await kept.idle(3.0)
    assert kept.pool.take() is connection


async def test_a_connection_whose_peer_has_closed_is_not_taken_although_nothing_was_read() -> None:
    peers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: peers.append(writer), "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    port = server.sockets[0].getsockname()[1]
    pool = Pool(
        lambda factory: loop.create_connection(factory, "127.0.0.1", port),
        idle_s=60,
        max_idle=9,
        connect_timeout_s=5,
    )
    connection = await pool.connect()
    connection.start(NullResponseStream(), b"GET / HTTP/1.1\r\n\r\n", b"")
    await until(lambda: peers, what="the connection")
    peers[0].write(OK + b"\r\n")
    await until(lambda: connection.response_stream is None, what="the response")
    connection.idle_since -= 1.0
    with socket.socket(fileno=os.dup(peers[0].get_extra_info("socket").fileno())) as closing:
        closing.shutdown(socket.SHUT_WR)
    # No turn of the loop since.
    assert pool.take() is None
    pool.close()
    peers[0].close()
    server.close()
