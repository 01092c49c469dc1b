"""The REST API on the public listeners: from the edge to the aiohttp application.

One parser and one set of limits face the outside, the edge's. In a process with the role ``api``
the application is an aiohttp server that listens nowhere: each call goes to it over a socket pair,
a Unix socket without a name. In others the call goes over TCP to a process that has the role. Both
ends keep the other from running ahead. The rate is low: a call costs two sockets and a task, and
its connection serves nothing else.

Two parsers never agree on everything. What the edge takes and the other end refuses is answered
here: its own error page is not passed on, because it repeats the bytes that it could not read, be
they a credential.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import httptools

from gateway.api.limits import check_body_bytes
from gateway.dispatch.responses import send_problem
from gateway.errors import BadRequest, BodyTooLarge, GatewayError, StoreUnavailable
from http1.stream import Headers, Request, RequestStream, ResponseWriter
from runtime.tasks import spawn
from wire.headers import CONTENT_LENGTH, CONTENT_TYPE, forwardable
from wire.http1 import LAST_CHUNK, REASONS, encode_chunk, encode_request_head
from wire.problem import PROBLEM_JSON

_OURS = frozenset({b"host", b"expect", CONTENT_LENGTH})
"""Written anew for the application: the edge has read them already."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"date", b"server"})
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_NO_ROUTES_METHOD = b"TRACE"
"""Goes to the application for every other method, which its parser may not know or take for another
protocol's (PRI). No route has it, so the answer is 404, or 405 with what the path allows."""

Open = Callable[[], asyncio.BaseProtocol]
Connect = Callable[[asyncio.Protocol], Awaitable[asyncio.Transport]]
"""Connects a protocol to the application; raises OSError."""
Seen = Callable[[bytes, int], None]
"""Told method and status of each call."""


class ApiBridge:
    """Serves requests of the edge with the application."""

    __slots__ = ("_connect", "_seen")

    def __init__(self, connect: Connect, seen: Seen) -> None:
        """``connect`` as from `gateway.dispatch.api_server.ApiServer.start`, or `beyond`."""
        self._connect = connect
        self._seen = seen

    def serve(self, request: Request, client: ResponseWriter, more: Headers) -> RequestStream:
        """Serve one request; its answer carries the headers in ``more`` too.

        Raises `BodyTooLarge`.
        """
        check_body_bytes(request.body_bytes)
        bridged = _Bridged(request, client, more, self._seen)
        spawn(_begin(self._connect, bridged), "api.call")
        return bridged


def within(open_server: Open) -> Connect:
    """Return what connects to a server of this process."""

    async def connect(protocol: asyncio.Protocol) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await loop.connect_accepted_socket(open_server, theirs)
        transport, _ = await loop.create_unix_connection(lambda: protocol, sock=ours)
        return transport

    return connect


def beyond(url: str) -> Connect:
    """Return what connects to another process's API, at ``http://host:port``.

    Raises ValueError for any other URL.
    """
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or _HTTP_PORT
    if parts.scheme != "http" or host is None:
        raise ValueError("not http://host:port")

    async def connect(protocol: asyncio.Protocol) -> asyncio.Transport:
        async with asyncio.timeout(_CONNECT_S):
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: protocol, host, port)
            return transport

    return connect


_HTTP_PORT = 80
_CONNECT_S = 5.0


async def _begin(connect: Connect, bridged: "_Bridged") -> None:
    try:
        transport = await connect(_Application(bridged))
    except OSError:
        bridged.connection_lost()
        return
    bridged.begin(transport)


class _Application(asyncio.Protocol):
    """The connection to the application, which reports to its call."""

    def __init__(self, call: "_Bridged") -> None:
        self._call = call

    def data_received(self, data: bytes) -> None:
        self._call.data_received(data)

    def pause_writing(self) -> None:
        self._call.pause_client()

    def resume_writing(self) -> None:
        self._call.resume_client()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it
        self._call.connection_lost()


class _Bridged:
    """One call: a `http1.stream.RequestStream`, and the client of the application."""

    def __init__(self, request: Request, client: ResponseWriter, more: Headers, seen: Seen) -> None:
        self._request = request
        self._client = client
        self._more = more
        self._seen = seen
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._length: int | None = None
        self._transport: asyncio.Transport | None = None
        self._is_chunked = request.body_bytes is None
        self._body_bytes = 0
        self._has_head = False
        self._is_over = False
        headers = forwardable(request.headers, _OURS)
        headers.append((b"host", request.authority))
        if self._is_chunked:
            framing = b"transfer-encoding: chunked\r\nconnection: close\r\n"
        else:
            framing = b"content-length: %d\r\nconnection: close\r\n" % (request.body_bytes or 0)
        method = request.method if request.method in _METHODS else _NO_ROUTES_METHOD
        self._early = bytearray(encode_request_head(method, request.target, headers, framing))

    # What the edge tells.

    def request_data(self, data: bytes) -> None:
        self._body_bytes += len(data)
        try:
            check_body_bytes(self._body_bytes)
        except BodyTooLarge as error:
            self._fail(error)
            return
        self._write(encode_chunk(data) if self._is_chunked else data)

    def first_part_end(self) -> None:
        """Nothing waits for it: every part of the body goes on as it comes."""

    def request_end(self) -> None:
        if self._is_chunked:
            self._write(LAST_CHUNK)

    def request_broken(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # What the connection to the application tells.

    def begin(self, transport: asyncio.Transport) -> None:
        """The connection is there.

        Not `connection_made`: a transport of uvloop that is closed in there, or before
        ``create_unix_connection`` has returned, never closes its socket.
        """
        self._transport = transport
        if self._is_over:
            transport.abort()
            return
        transport.write(bytes(self._early))
        self._early.clear()
        if self._client.is_writing_paused():
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(GatewayError())

    def pause_client(self) -> None:
        if not self._is_over:
            self._client.pause_reading()

    def resume_client(self) -> None:
        if not self._is_over:
            self._client.resume_reading()

    def connection_lost(self) -> None:
        self._transport = None
        self._fail(StoreUnavailable(_UNREACHED))

    # What the parser tells of the answer.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == CONTENT_LENGTH:
            self._length = int(value)
        if name not in _FRAMING:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= _FIRST_ERROR and not self._is_problem():
            self._fail(_unexplained(status))
            return
        self._has_head = True
        self._seen(self._request.method, status)
        self._client.send_head(status, [*self._headers, *self._more], self._length)
        if self._request.method == b"HEAD":
            self._finish()

    def on_body(self, data: bytes) -> None:
        if not self._is_over:
            self._client.send_data(data)

    def on_message_complete(self) -> None:
        if not self._is_over:
            self._finish()

    def _is_problem(self) -> bool:
        return any(
            name == CONTENT_TYPE and value.startswith(PROBLEM_JSON) for name, value in self._headers
        )

    def _finish(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.close()
        self._client.send_end()

    def _fail(self, error: GatewayError) -> None:
        """End the call: with an answer while there is none yet, visibly broken else."""
        if self._is_over:
            return
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()
        if self._has_head:
            self._client.abort()
            return
        error.headers += self._more
        self._seen(self._request.method, error.status)
        send_problem(self._request, self._client, error)

    def _write(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._transport is None:
            self._early += data
        else:
            self._transport.write(data)


def _unexplained(status: int) -> GatewayError:
    """Return what is answered for an error of ``status`` that came without a problem document."""
    if status in _UNREACHED_STATUSES:
        return StoreUnavailable(_UNREACHED)
    error = BadRequest(_NOT_TAKEN) if status < GatewayError.status else GatewayError()
    if status != error.status:
        error.status = status
        error.kind = REASONS.get(status, b"Error").decode().lower().replace(" ", "-")
    return error


_FIRST_ERROR = 400
_UNREACHED_STATUSES = (502, 503, 504)
"""What something between us and another process's API answers when it is not there."""
_UNREACHED = "The API cannot be reached"
_NOT_TAKEN = "The API does not take such a request"
