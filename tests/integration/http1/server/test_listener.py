"""The server over real sockets, its responses read by an independent parser (h11)."""

import asyncio
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import pytest

from http1.server.limits import ServerLimits
from http1.server.listener import Listener, ListenError, bind_sockets, claim, listen
from http1.server.protocol import Http1Protocol
from http1.stream import Request, ResponseWriter
from runtime.tasks import spawn
from tests.support.waiting import PATIENCE_S, Signal, until

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass
class Address:
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""


class Served:
    """A request's stream whose events can be waited for."""

    def __init__(self, request: Request, writer: ResponseWriter, serve: "Serve") -> None:
        self.request = request
        self.writer = writer
        self.data = b""
        self.events: list[str] = []
        self.serve = serve
        self._changed = Signal()

    def _happened(self, event: str) -> None:
        self.events.append(event)
        self._changed.notify()
        self.serve(event, self)

    def request_data(self, data: bytes) -> None:
        self.data += data
        self._happened("data")

    def first_part_end(self) -> None:
        self._happened("first_part_end")

    def request_end(self) -> None:
        self._happened("end")

    def request_broken(self) -> None:
        self._happened("broken")

    def pause_writing(self) -> None:
        self._happened("pause_writing")

    def resume_writing(self) -> None:
        self._happened("resume_writing")

    async def wait_for(self, event: str) -> None:
        await until(
            lambda: self.events,
            lambda events: event in events,
            what=f"the event {event}",
            changed=self._changed,
        )

    def answer(self, body: bytes = b"ok", status: int = 200) -> None:
        self.writer.send_head(status, [], len(body))
        self.writer.send_data(body)
        self.writer.send_end()


Serve = Callable[[str, Served], object]


def echo(event: str, served: Served) -> None:
    if event == "end":
        served.answer(served.data)


def nothing(event: str, served: Served) -> None:
    """Leave it open."""


class Edge:
    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.listener: Listener
        self.address = ("127.0.0.1", 0)
        self.served: asyncio.Queue[Served] = asyncio.Queue()

    def dispatch(self, request: Request, writer: ResponseWriter) -> Served:
        served = Served(request, writer, self.serve)
        self.served.put_nowait(served)
        return served

    async def next(self) -> Served:
        async with asyncio.timeout(PATIENCE_S):
            return await self.served.get()

    @property
    def connection(self) -> Http1Protocol:
        """The only open connection."""
        (connection,) = self.listener
        assert isinstance(connection, Http1Protocol)
        return connection

    async def until_empty(self) -> None:
        assert await self.listener.drain(asyncio.get_running_loop().time() + PATIENCE_S)


@asynccontextmanager
async def edge(serve: Serve = echo, limits: ServerLimits | None = None) -> AsyncIterator[Edge]:
    it = Edge(serve)
    sockets = bind_sockets([Address()])
    it.address = sockets[0].getsockname()
    it.listener = await listen(sockets, it.dispatch, limits or ServerLimits())
    try:
        yield it
    finally:
        it.listener.abort_all()
        await it.until_empty()


class Client:
    """A plain socket, read without a parser or with h11."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, address: Any, receive_bytes: int = 0) -> "Client":
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        connected = socket.socket(family, socket.SOCK_STREAM)
        if receive_bytes:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connected.setblocking(False)
        client = cls(connected)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.loop.sock_connect(connected, address)
        except OSError:
            connected.close()
            raise
        return client

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.loop.sock_sendall(self.socket, data)

    async def read(self, size: int = 65536) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.loop.sock_recv(self.socket, size)

    async def read_until(self, part: bytes) -> bytes:
        data = b""
        while part not in data:
            piece = await self.read()
            assert piece, f"ended before {part!r}: {data!r}"
            data += piece
        return data

    async def read_to_end(self) -> bytes:
        data = b""
        while piece := await self.read():
            data += piece
        return data

    async def responses(self, methods: list[str]) -> list[tuple[int, bytes]]:
        """Send requests of these methods in one write and read as many responses with h11."""
        wire = b"".join(
            b"%b /x HTTP/1.1\r\nHost: h\r\n\r\n" % method.encode() for method in methods
        )
        await self.send(wire)
        parser = h11.Connection(h11.CLIENT)
        return [await self._response(parser, method) for method in methods]

    async def _response(self, parser: h11.Connection, method: str) -> tuple[int, bytes]:
        parser.send(h11.Request(method=method, target="/x", headers=[("host", "h")]))
        parser.send(h11.EndOfMessage())
        status, body = 0, b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await self.read(7))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if parser.our_state is h11.DONE:
                    parser.start_next_cycle()
                return status, body

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


# What a client reads


async def test_another_parser_reads_every_kind_of_response() -> None:
    async def later(served: Served) -> None:
        served.writer.send_head(200, [], None)
        for piece in (b"data: 1\n\n", b"", b"data: 2\n\n"):
            served.writer.send_data(piece)
        served.writer.send_end()

    answers = iter([("sized", 200), ("chunked", 200), ("empty", 204), ("none", 304), ("head", 200)])
    tasks = []

    def serve(event: str, served: Served) -> None:
        if event != "end":
            return
        kind, status = next(answers)
        if kind == "chunked":
            tasks.append(asyncio.get_running_loop().create_task(later(served)))
        elif kind == "sized":
            served.answer(b"hello")
        else:
            served.writer.send_head(status, [], 5)
            served.writer.send_data(b"hello")
            served.writer.send_end()

    async with edge(serve) as it:
        client = await Client.connect(it.address)
        responses = await client.responses(["GET", "GET", "GET", "GET", "HEAD"])
        assert responses == [
            (200, b"hello"),
            (200, b"data: 1\n\ndata: 2\n\n"),
            (204, b""),
            (304, b""),
            (200, b""),
        ]
        assert it.listener.connections == 1
        client.close()


async def test_100_continue_comes_before_the_body_is_sent() -> None:
    async with edge() as it:
        client = await Client.connect(it.address)
        await client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        assert (await client.read_until(b"hello")).startswith(b"HTTP/1.1 200")
        client.close()


async def test_an_early_response_reaches_a_client_that_goes_on_sending() -> None:
    def refuse(event: str, served: Served) -> None:
        served.answer(b"too large", 413)

    async with edge(lambda event, served: event == "data" and refuse(event, served)) as it:
        client = await Client.connect(it.address)
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            await client.send(b"x" * 100_000)
        response = await client.read_to_end()
        assert response.startswith(b"HTTP/1.1 413")
        assert response.endswith(b"too large")
        client.close()
        await it.until_empty()


async def test_an_aborted_response_is_seen_as_broken_even_where_eof_would_end_it() -> None:
    async with edge(nothing) as it:
        client = await Client.connect(it.address)
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        served = await it.next()
        served.writer.send_head(200, [], None)
        served.writer.send_data(b"half")
        await client.read_until(b"half")
        served.writer.abort()
        with pytest.raises(ConnectionResetError):
            await client.read()
        client.close()


# Backpressure


async def test_a_slow_reader_bounds_what_is_held_for_it() -> None:
    """The producer stops at the mark, goes on as the client reads, and nothing is lost."""
    limits = ServerLimits()
    async with edge(nothing, limits) as it:
        client = await Client.connect(it.address, receive_bytes=4096)
        await client.send(GET)
        served = await it.next()
        served.writer.send_head(200, [], None)
        produced = most_waiting = 0
        total = 20_000_000
        connection = it.connection
        block = b"x" * 16_384

        def produce() -> None:
            nonlocal produced, most_waiting
            while produced < total and not served.writer.is_writing_paused():
                served.writer.send_data(block)
                produced += len(block)
                waiting = connection.unsent_bytes
                most_waiting = max(most_waiting, waiting)
            if produced >= total:
                served.writer.send_end()

        it.serve = served.serve = lambda event, _: event == "resume_writing" and produce()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        produce()
        received = len(await client.read(10_000))
        assert produced < total
        while True:
            piece = await client.read(1_000_000)
            received += len(piece)
            if piece.endswith(b"0\r\n\r\n"):
                break
        assert received > total
        assert most_waiting <= limits.high_water_bytes + 2 * len(block)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000
        client.close()


async def test_a_sender_is_paused_while_its_body_is_not_wanted() -> None:
    async with edge(nothing) as it:
        client = await Client.connect(it.address)
        total = 20_000_000
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % total)
        served = await it.next()
        served.writer.pause_reading()
        sending = asyncio.get_running_loop().create_task(client.send(b"x" * total))
        connection = it.connection
        await until(lambda: not connection.is_reading)
        held_bytes = connection.held_bytes
        assert held_bytes < 65_536 + 262_144
        assert served.data == b""
        assert not sending.done()
        served.writer.resume_reading()
        await served.wait_for("end")
        await sending
        assert len(served.data) == total
        client.close()


# Leaving


async def test_a_client_that_closes_breaks_the_stream_although_it_could_have_half_closed() -> None:
    async with edge(nothing) as it:
        client = await Client.connect(it.address)
        await client.send(GET)
        served = await it.next()
        client.close()
        await served.wait_for("broken")


async def test_a_client_that_half_closes_gets_its_response() -> None:
    async with edge(nothing) as it:
        client = await Client.connect(it.address)
        await client.send(GET + GET)
        client.socket.shutdown(socket.SHUT_WR)
        first = await it.next()
        assert await client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        first.answer(b"one")
        second = await it.next()
        second.answer(b"two")
        data = await client.read_to_end()
        assert data.count(b"HTTP/1.1 200 OK") == 2
        assert data.endswith(b"two")
        assert "broken" not in first.events + second.events
        client.close()


async def test_a_client_that_closes_during_a_silent_stream_breaks_it_at_once() -> None:
    async with edge(nothing) as it:
        client = await Client.connect(it.address)
        await client.send(GET)
        served = await it.next()
        served.writer.send_head(200, [], None)
        served.writer.send_data(b"one event")
        await client.read_until(b"one event")
        client.close()
        await served.wait_for("broken")


@pytest.mark.parametrize("leave", [Client.close, Client.reset])
async def test_a_client_that_leaves_behind_an_unread_body_breaks_the_stream(
    leave: Callable[[Client], None],
) -> None:
    async with edge(nothing, ServerLimits(idle_timeout_s=0.2)) as it:
        client = await Client.connect(it.address)
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n")
        served = await it.next()
        served.writer.pause_reading()
        await client.send(b"x" * 150_000)
        connection = it.connection
        await until(lambda: not connection.is_reading)
        leave(client)
        await served.wait_for("broken")


# Time


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HT", b"408"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", b"408"),
        (b"", b""),
        (GET, b"200"),
    ],
    ids=["head", "body", "silent", "idle"],
)
async def test_a_timeout_ends_the_connection(sent: bytes, status: bytes) -> None:
    limits = ServerLimits(head_timeout_s=0.1, body_stall_s=0.1, idle_timeout_s=0.1)
    async with edge(echo, limits) as it:
        client = await Client.connect(it.address)
        if sent:
            await client.send(sent)
        assert (await client.read_to_end())[9:12] == status
        client.close()


async def test_a_client_that_reads_nothing_is_reset() -> None:
    async with edge(nothing, ServerLimits(write_stall_s=0.2)) as it:
        client = await Client.connect(it.address, receive_bytes=4096)
        await client.send(GET)
        served = await it.next()
        served.writer.send_head(200, [], None)
        while not served.writer.is_writing_paused():
            served.writer.send_data(b"x" * 65_536)
        await served.wait_for("broken")
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()
        client.close()


# Listening


async def test_one_connection_too_many_gets_503() -> None:
    async with edge(nothing, ServerLimits(max_connections=1)) as it:
        first = await Client.connect(it.address)
        await first.send(GET)
        served = await it.next()
        second = await Client.connect(it.address)
        assert (await second.read_to_end()).startswith(b"HTTP/1.1 503")
        second.close()
        served.answer()
        await first.read_until(b"ok")
        first.close()


async def test_draining_lets_the_busy_finish_and_closes_the_idle() -> None:
    async with edge(nothing) as it:
        idle = await Client.connect(it.address)
        await idle.send(GET)
        (await it.next()).answer()
        await idle.read_until(b"ok")
        busy = await Client.connect(it.address)
        await busy.send(GET)
        served = await it.next()
        it.listener.stop_accepting()
        loop = asyncio.get_running_loop()
        assert not await it.listener.drain(loop.time() + 0.01)
        assert await idle.read() == b""
        assert it.listener.connections == 1
        served.answer()
        assert b"connection: close\r\n" in await busy.read_to_end()
        assert await it.listener.drain(loop.time() + PATIENCE_S)
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(it.address)
        idle.close()
        busy.close()


async def test_no_connection_is_lost_when_one_of_several_listeners_on_a_port_stops() -> None:
    reserved = [bind_sockets([Address()], reuse_port=True, reserve=True)]
    port = reserved[0][0].getsockname()[1]
    reserved.append(bind_sockets([Address(port=port)], reuse_port=True, reserve=True))
    with pytest.raises(ConnectionRefusedError):
        # Nobody is ready.
        await Client.connect(("127.0.0.1", port))
    first, second = Edge(echo), Edge(echo)
    for it, sockets in zip((first, second), reserved, strict=True):
        it.listener = await listen(claim(sockets), it.dispatch, ServerLimits())
    try:
        # Blocking: the kernel has made the connections, and nothing has accepted them.
        begun = [socket.create_connection(("127.0.0.1", port)) for _ in range(32)]
        for connected in begun:
            connected.setblocking(False)
        stopping = spawn(first.listener.finish_accepting(), "stop")
        await until(
            lambda: first.listener.connections + second.listener.connections == len(begun),
            what="those that had begun to be accepted",
        )
        accepted = first.listener.connections
        assert accepted
        later = [spawn(Client.connect(("127.0.0.1", port)), "connect") for _ in range(32)]
        clients = [Client(connected) for connected in begun]
        clients += [await connecting for connecting in later]
        await stopping
        for client in clients:
            await client.send(GET)
            assert (await client.read_until(b"\r\n")).startswith(b"HTTP/1.1 200")
        assert first.listener.connections + second.listener.connections == len(clients)
        # The later ones came to the second, some of them at their second attempt.
        assert first.listener.connections == accepted
        for client in clients:
            client.close()
    finally:
        for it in (first, second):
            it.listener.abort_all()
            await it.until_empty()


async def test_a_request_that_has_arrived_is_served_although_the_drain_closes_idle_ones() -> None:
    async with edge() as it:
        client = await Client.connect(it.address)
        await client.send(GET)
        await client.read_until(b"\r\n\r\n")
        client.socket.setblocking(True)
        # The loop has no turn between the request and the drain.
        client.socket.sendall(GET)
        drained = it.listener.drain(asyncio.get_running_loop().time() + PATIENCE_S)
        client.socket.setblocking(False)
        assert await drained
        assert b"connection: close\r\n" in await client.read_to_end()
        client.close()


async def test_abort_all_breaks_every_stream() -> None:
    async with edge(nothing) as it:
        client = await Client.connect(it.address)
        await client.send(GET)
        served = await it.next()
        it.listener.abort_all()
        assert served.events[-1] == "broken"
        with pytest.raises(ConnectionResetError):
            await client.read()
        client.close()


async def test_a_unix_socket_serves_and_its_stale_file_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "edge.sock")
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(path)
    abandoned.close()
    it = Edge(echo)
    it.listener = await listen(bind_sockets([Address(path=path)]), it.dispatch, ServerLimits())
    assert it.listener.addresses == (f"unix:{path}",)
    client = await Client.connect(path)
    await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nunix")
    await client.read_until(b"unix")
    with pytest.raises(ListenError, match=r"cannot listen on unix:.*in use"):
        bind_sockets([Address(path=path)])
    client.close()
    it.listener.abort_all()
    await it.until_empty()
    assert os.listdir(tmp_path) == []


async def test_the_last_process_that_listens_removes_the_unix_sockets_file(tmp_path: Path) -> None:
    path = str(tmp_path / "edge.sock")
    (bound,) = bind_sockets([Address(path=path)])
    siblings = bound.dup()
    it = Edge(echo)
    it.listener = await listen([bound], it.dispatch, ServerLimits())
    it.listener.stop_accepting()
    assert os.listdir(tmp_path) == ["edge.sock"]
    siblings.close()
    it.listener.abort_all()
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_not_a_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    with pytest.raises(ListenError, match=r"cannot listen on unix:.*in use"):
        bind_sockets([Address(path=str(path))])
    assert path.read_text() == "precious"


def test_a_port_in_use_is_one_clear_line() -> None:
    (bound,) = bind_sockets([Address()])
    port = bound.getsockname()[1]
    with pytest.raises(ListenError) as failed:
        bind_sockets([Address(), Address(port=port)])
    assert str(failed.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    bound.close()


def test_a_port_beyond_the_last_is_an_error() -> None:
    with pytest.raises(ListenError, match=":65536: there is no such port"):
        bind_sockets([Address(port=65_536)])


def test_several_processes_may_share_a_port() -> None:
    (first,) = bind_sockets([Address()], reuse_port=True)
    (second,) = bind_sockets([Address(port=first.getsockname()[1])], reuse_port=True)
    assert first.fileno() != second.fileno()
    assert first.getsockname() == second.getsockname()
    first.close()
    second.close()


async def test_accepted_connections_send_without_delay_on_ipv6_too() -> None:
    try:
        sockets = bind_sockets([Address(host="::1")])
    except ListenError as error:
        pytest.skip(str(error))
    it = Edge(echo)
    it.listener = await listen(sockets, it.dispatch, ServerLimits())
    assert it.listener.addresses[0].startswith("[::1]:")
    reader, writer = await asyncio.open_connection("::1", sockets[0].getsockname()[1])
    writer.write(GET)
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b"\r\n\r\n")
    connection = it.connection
    assert connection.peer_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    it.listener.abort_all()
    await it.until_empty()
