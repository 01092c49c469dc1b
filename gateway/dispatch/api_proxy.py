"""Proxy from the public listeners to the REST API, an aiohttp application.

One parser and one set of limits face the outside, those of the gateway's own HTTP server. In a
process with the role ``api`` the application is an aiohttp server without a listening socket: each
call reaches it over a socket pair, which is a Unix socket without a name. In other processes the
call goes over TCP to a process with the role. Backpressure works in both directions. The rate of
calls is low, and each costs a connection and a task; but for heartbeats, which have a way of their
own (`gateway.dispatch.heartbeats`).

Two HTTP parsers never agree on everything. The proxy replaces error responses of the application
that are not problem documents, because aiohttp's own error page repeats the bytes that it could
not parse, and these may be a credential.
"""

import asyncio
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from gateway.api.limits import check_body_bytes
from gateway.dispatch.heartbeats import HeartbeatCall, TakeHeartbeat, is_heartbeat
from gateway.dispatch.responses import send_problem
from gateway.errors import BodyTooLarge, ForwardedError, GatewayError, StoreUnavailable
from gateway.routing.cross_origin import PageAccess
from http1.client.connection import ClientConnection
from http1.client.pool import Connect
from http1.peer import keep_alive
from http1.stream import (
    Failure,
    Headers,
    NullRequestStream,
    NullResponseStream,
    Request,
    RequestStream,
    ResponseWriter,
)
from runtime.tasks import spawn
from runtime.timeouts import silence_limit
from wire.deadlines import VANISHED_S
from wire.headers import (
    CONTENT_LENGTH,
    CONTENT_TYPE,
    SOURCE_DROPS,
    X_REQUEST_ID,
    forwardable,
)
from wire.http1 import REASONS, encode_request_head
from wire.problem import PROBLEM_JSON

_REPLACED = frozenset({b"host", b"expect", CONTENT_LENGTH}) | SOURCE_DROPS
"""Request headers that are written anew: the gateway's server has acted on them."""
_TRANSFER_ENCODING = b"transfer-encoding"
_SERVERS_OWN = frozenset({_TRANSFER_ENCODING, b"connection", b"date", b"server"})
"""Response headers that the gateway's server writes itself."""
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_NO_ROUTES_METHOD = b"TRACE"
"""Sent in place of every other method, which aiohttp's parser may not know or take for another
protocol's (PRI). No route has it, so the response is 404, or 405 with the allowed methods."""

_FIRST_ERROR = 400
_UNREACHABLE_STATUSES = (502, 503, 504)
"""Statuses with which a proxy in front of another process's API says that it is unreachable."""
_UNREACHABLE = "The API cannot be reached"
_NOT_ACCEPTED = "The API does not take such a request"
_HTTP_PORT = 80
_CONNECT_TIMEOUT_S = 5.0

OpenServer = Callable[[], asyncio.BaseProtocol]
"""Makes the server's protocol for one connection."""
OnResponse = Callable[[Request, int, str], None]
"""Called with each call, the status of its response and the request id in it."""


def connect_in_process(open_server: OpenServer) -> Connect:
    """Return a function that connects to a server of this process."""

    async def connect(factory: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        client, server = socket.socketpair()
        client.setblocking(False)
        server.setblocking(False)
        await loop.connect_accepted_socket(open_server, server)
        await loop.create_unix_connection(factory, sock=client)

    return connect


def connect_tcp(url: str) -> Connect:
    """Return a function that connects to the API of another process at ``http://host:port``.

    Raises ValueError for any other URL.
    """
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or _HTTP_PORT
    if parts.scheme != "http" or host is None:
        raise ValueError("not http://host:port")

    async def connect(factory: Callable[[], asyncio.Protocol]) -> None:
        async with silence_limit(_CONNECT_TIMEOUT_S):
            opened, _ = await asyncio.get_running_loop().create_connection(factory, host, port)
            keep_alive(opened.get_extra_info("socket"), VANISHED_S)

    return connect


class ApiProxy:
    """Serves requests with the REST API."""

    __slots__ = ("_connect", "_on_response", "_take")

    def __init__(
        self, connect: Connect, on_response: OnResponse, take: TakeHeartbeat | None = None
    ) -> None:
        """``connect`` as from `gateway.dispatch.api_server.ApiServer.start` or `connect_tcp`.

        Without ``take`` heartbeats are calls as all others.
        """
        self._connect = connect
        self._on_response = on_response
        self._take = take

    def serve(self, request: Request, client: ResponseWriter, access: PageAccess) -> RequestStream:
        """Serve one request; ``access`` is what its response gets for web pages.

        Raises `BodyTooLarge`.
        """
        if self._take is not None and is_heartbeat(request):
            return HeartbeatCall(
                request,
                client,
                access,
                self._take,
                lambda: self._serve(request, client, access),
                self._on_response,
            )
        check_body_bytes(request.body_bytes)
        return self._serve(request, client, access)

    def _serve(self, request: Request, client: ResponseWriter, access: PageAccess) -> RequestStream:
        response = _ApiResponse(request, client, access, self._on_response)
        upload = _Upload(request, response)
        spawn(_connect(self._connect, upload, response), "api.call")
        return upload


async def _connect(connect: Connect, upload: "_Upload", response: "_ApiResponse") -> None:
    connection = ClientConnection(_SINGLE_USE, asyncio.get_running_loop())
    try:
        await connect(lambda: connection)
    except OSError:
        response.response_failed(Failure.UNREACHABLE)
        return
    # Not in `connection_made`: a uvloop transport that is closed there, or before
    # ``create_unix_connection`` has returned, never closes its socket.
    upload.start(connection)


class _SingleUse:
    """The owner of connections that each serve one call."""

    def released(self, connection: ClientConnection) -> None:
        connection.close()

    def lost(self, connection: ClientConnection) -> None:
        """Nothing refers to the connection any more."""

    def delay_small_body(self, connection: ClientConnection) -> None:
        connection.report_delayed()


_SINGLE_USE = _SingleUse()


class _Upload(NullRequestStream):
    """Sends one request of a client to the API."""

    __slots__ = ("_body_bytes", "_head", "_held", "_is_complete", "_request", "_response")

    def __init__(self, request: Request, response: "_ApiResponse") -> None:
        self._request = request
        self._response = response
        self._head = _request_head(request)
        self._held: list[bytes] = []
        self._body_bytes = 0
        self._is_complete = False

    def request_data(self, data: bytes) -> None:
        """Send the next bytes, or hold them until the connection is open."""
        response = self._response
        if response.is_over:
            return
        self._body_bytes += len(data)
        try:
            check_body_bytes(self._body_bytes)
        except BodyTooLarge as error:
            response.fail(error)
            return
        if response.connection is None:
            self._held.append(data)
        else:
            response.connection.send_data(data)

    def request_end(self) -> None:
        """Complete the request."""
        self._is_complete = True
        if self._response.connection is not None:
            self._response.connection.send_end()

    def request_broken(self) -> None:
        """Close the connection: the client has left."""
        self._response.cancel()

    def pause_writing(self) -> None:
        """Stop reading the response: the client reads slower than the API writes."""
        if self._response.connection is not None:
            self._response.connection.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading the response: the client has caught up."""
        if self._response.connection is not None:
            self._response.connection.resume_reading()

    def start(self, connection: ClientConnection) -> None:
        """Send the head and what has arrived of the body over the new connection."""
        request = self._request
        if self._response.is_over:
            connection.close()
            return
        self._response.connection = connection
        connection.start(
            self._response,
            self._head,
            b"".join(self._held),
            is_chunked=request.body_bytes is None,
            is_complete=self._is_complete,
            is_head=request.method == b"HEAD",
        )
        self._held.clear()
        if self._response.is_client_slow():
            connection.pause_reading()


class _ApiResponse(NullResponseStream):
    """Sends the API's response to one request to the client, or a problem document in its place.

    ``connection`` is the connection to the API, ``None`` before it is open and after the end.
    """

    __slots__ = (
        "_access",
        "_client",
        "_has_head",
        "_on_response",
        "_request",
        "connection",
        "is_over",
    )

    def __init__(
        self,
        request: Request,
        client: ResponseWriter,
        access: PageAccess,
        on_response: OnResponse,
    ) -> None:
        self._request = request
        self._client = client
        self._access = access
        self._on_response = on_response
        self._has_head = False
        self.connection: ClientConnection | None = None
        self.is_over = False

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the head, unless it is an error without a problem document."""
        if status >= _FIRST_ERROR and not _is_problem(headers):
            self.fail(_make_error(status))
            return
        kept = []
        for header in headers:
            if header[0] == _TRANSFER_ENCODING:
                # Stays chunked, although the length is known if all of it arrived at once.
                body_bytes = None
            if header[0] not in _SERVERS_OWN:
                kept.append(header)
        self._has_head = True
        self._on_response(self._request, status, _request_id_in(headers))
        # The process that has the API is a gateway too, which may have its own CORS headers.
        self._client.send_head(status, self._access.of_forwarded(status, kept), body_bytes)

    def response_data(self, data: bytes) -> None:
        """Send the next bytes of the body."""
        if not self.is_over:
            self._client.send_data(data)

    def response_end(self) -> None:
        """Complete the response."""
        if not self.is_over:
            self.is_over = True
            self.connection = None
            self._client.send_end()

    def response_failed(self, failure: Failure) -> None:
        """Fail: the API is unreachable, or its bytes are not an HTTP response."""
        self.connection = None
        if failure is Failure.INVALID:
            self.fail(GatewayError())
        else:
            self.fail(StoreUnavailable(_UNREACHABLE))

    def pause_writing(self) -> None:
        """Stop reading the client's body: the API reads slower than the client sends."""
        if not self.is_over:
            self._client.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading the client's body: the API has caught up."""
        if not self.is_over:
            self._client.resume_reading()

    def fail(self, error: GatewayError) -> None:
        """End the call: with a problem document, or broken if the response has begun."""
        if self.is_over:
            return
        self.cancel()
        if self._has_head:
            self._client.abort()
            return
        error.headers = self._access.of_own_response(error.headers)
        request_id = send_problem(self._request, self._client, error)
        self._on_response(self._request, error.status, request_id)

    def cancel(self) -> None:
        """Close the connection to the API; do not call the client any more."""
        self.is_over = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def is_client_slow(self) -> bool:
        """Whether the client reads slower than responses are written to its connection."""
        return self._client.is_writing_paused()


def _request_head(request: Request) -> bytes:
    headers = forwardable(request.headers, _REPLACED)
    headers.append((b"host", request.authority))
    headers += request.source.headers
    if request.body_bytes is None:
        framing = b"transfer-encoding: chunked\r\nconnection: close\r\n"
    else:
        framing = b"content-length: %d\r\nconnection: close\r\n" % request.body_bytes
    method = request.method if request.method in _METHODS else _NO_ROUTES_METHOD
    return encode_request_head(method, request.target, headers, framing)


def _request_id_in(headers: Headers) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == X_REQUEST_ID), "")


def _is_problem(headers: Headers) -> bool:
    return any(name == CONTENT_TYPE and value.startswith(PROBLEM_JSON) for name, value in headers)


def _make_error(status: int) -> GatewayError:
    """Return the error for a response of ``status`` that came without a problem document."""
    if status in _UNREACHABLE_STATUSES:
        return StoreUnavailable(_UNREACHABLE)
    if status == GatewayError.status:
        return GatewayError()
    detail = _NOT_ACCEPTED if status < GatewayError.status else GatewayError.summary
    kind = REASONS.get(status, b"Error").decode().lower().replace(" ", "-")
    return ForwardedError(detail, status=status, kind=kind)
