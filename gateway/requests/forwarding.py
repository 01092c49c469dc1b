"""Forwards a client's request to the gateway process that holds its call.

It goes to that process's attach listener, with its secret, and is served there as if the client had
come there. Backpressure works in both directions. A request that waits for its response costs a
connection and an entry in the timers, and no task.
"""

from collections.abc import Callable
from hmac import compare_digest

from gateway.errors import NotFound
from gateway.requests.errors import Misdirected
from gateway.requests.exchanges import Windows
from gateway.requests.holders import Holder, Holders
from gateway.routing.organizations import parse_organization_path
from http1.client.connection import ClientConnection
from http1.stream import (
    Failure,
    Headers,
    NullRequestStream,
    NullResponseStream,
    Request,
    RequestStream,
    ResponseWriter,
)
from queueing.interface import QueueUnavailable
from runtime.tasks import spawn
from wire.headers import CONTENT_LENGTH, NVCF_HOLDER_SECRET, forwardable
from wire.http1 import encode_request_head

HEAD_GRACE_S = 15.0
"""The holder has so many seconds for a response head beyond the client's window."""
_REPLACED = frozenset({b"host", b"expect", CONTENT_LENGTH, NVCF_HOLDER_SECRET})
_NOT_PASSED_ON = frozenset({b"transfer-encoding", b"connection"})

Otherwise = Callable[[], RequestStream]
"""Serves the request without the holder, which does not respond."""


class Forwarder:
    """Forwards requests without a body."""

    __slots__ = ("_holders", "_windows")

    def __init__(self, holders: Holders, windows: Windows) -> None:
        self._holders = holders
        self._windows = windows

    @property
    def process(self) -> int:
        """The number of this process, whose calls are not forwarded."""
        return self._holders.process

    def serve(
        self,
        request: Request,
        client: ResponseWriter,
        process: int,
        window_s: float,
        otherwise: Otherwise,
        silent: Otherwise,
    ) -> RequestStream:
        """Forward ``request`` to the process with this number.

        ``window_s`` is how long it may wait for a response head. ``otherwise`` is called if the
        holder is gone, or goes before the head. ``silent`` is called in its place if the holder may
        still be there, and does not respond.
        """
        exchange = ForwardedExchange(
            request,
            client,
            otherwise,
            silent,
            self._windows,
            lambda: spawn(self._reach(exchange, None, process, window_s), "requests.forward"),
        )
        holder = self._holders.known(process)
        connection = None if holder is None else holder.pool.take()
        if holder is not None and connection is not None:
            exchange.send(holder, connection, window_s)
        else:
            spawn(self._reach(exchange, holder, process, window_s), "requests.forward")
        return exchange

    async def _reach(
        self, exchange: "ForwardedExchange", holder: Holder | None, process: int, window_s: float
    ) -> None:
        """Connect to the holder; if it is not where it was, ask it where it is."""
        holders = self._holders
        for is_known in (True, False):
            if holder is None or not is_known:
                try:
                    holder = await holders.ask(process)
                except QueueUnavailable:
                    # Perhaps it has just died, which the broker learns soon.
                    continue
                if holder is None:
                    exchange.fall_back()
                    return
            try:
                connection = holder.pool.take() or await holder.pool.connect()
            except OSError:
                holders.forget(process)
                continue
            exchange.send(holder, connection, window_s)
            return
        exchange.fall_back(is_silent=True)


Serve = Callable[[Request, ResponseWriter], RequestStream]
OnResponse = Callable[[Request, int], None]
"""Called with each request and the status of its response."""


class ForwardedRequests:
    """Serves what other processes forward to this one."""

    __slots__ = ("_routes", "_secret")

    def __init__(self, secret: bytes) -> None:
        """``secret`` is what this process has given to the others."""
        self._secret = secret
        self._routes: list[tuple[bytes, Serve]] = []

    def add(self, prefix: bytes, serve: Serve) -> None:
        """Serve paths that begin with ``prefix``, also those of NVCF below an organization."""
        self._routes.append((prefix, serve))

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request that has the header with a secret.

        Raises `Misdirected` if it is another one, and `NotFound`.
        """
        if not compare_digest(request.values[NVCF_HOLDER_SECRET], self._secret):
            raise Misdirected
        target = parse_organization_path(request.target).path
        for prefix, serve in self._routes:
            if target.startswith(prefix):
                return serve(request, client)
        raise NotFound


class ForwardedExchange(NullRequestStream, NullResponseStream):
    """One forwarded request: towards the client, and towards the holder."""

    __slots__ = (
        "_again",
        "_client",
        "_connection",
        "_has_head",
        "_is_misdirected",
        "_is_over",
        "_next",
        "_otherwise",
        "_request",
        "_silent",
        "_windows",
        "due_at",
        "slot",
    )

    def __init__(
        self,
        request: Request,
        client: ResponseWriter,
        otherwise: Otherwise,
        silent: Otherwise,
        windows: Windows,
        again: Callable[[], object],
    ) -> None:
        """``again`` is called once if the holder is not where it was: it asks where it is."""
        self._request = request
        self._client = client
        self._otherwise = otherwise
        self._silent = silent
        self._windows = windows
        self._connection: ClientConnection | None = None
        self._next: RequestStream | None = None
        self._again: Callable[[], object] | None = again
        self._has_head = self._is_over = self._is_misdirected = False
        self.due_at: float | None = None
        self.slot = -1

    def send(self, holder: Holder, connection: ClientConnection, window_s: float) -> None:
        """Send the request over ``connection``."""
        if self._is_over:
            connection.release()
            return
        self._connection = connection
        self._is_misdirected = False
        request = self._request
        self._windows.open(self, window_s + HEAD_GRACE_S)
        headers = forwardable(request.headers, _REPLACED)
        headers.append((b"host", holder.authority))
        headers.append((NVCF_HOLDER_SECRET, holder.secret))
        connection.start(
            self,
            encode_request_head(request.method, request.target, headers, b""),
            b"",
            is_head=request.method == b"HEAD",
        )
        if self._client.is_writing_paused():
            connection.pause_reading()

    def fall_back(self, *, is_silent: bool = False) -> None:
        """Serve the request without the holder, which is gone, or does not respond."""
        if not self._is_over:
            self._is_over = True
            self._next = self._silent() if is_silent else self._otherwise()

    def timed_out(self) -> None:
        """No response head has come: the holder stands still."""
        self._close()
        self.fall_back(is_silent=True)

    def _ask_again(self) -> None:
        """The holder is not where it was, or has closed a connection."""
        again, self._again = self._again, None
        if again is not None and not self._is_over:
            again()
        else:
            self.fall_back(is_silent=True)

    # The client

    def request_broken(self) -> None:
        """The client left."""
        self._is_over = True
        self._close()
        if self._next is not None:
            self._next.request_broken()

    def pause_writing(self) -> None:
        """The client reads slower than the holder writes."""
        if self._connection is not None:
            self._connection.pause_reading()
        elif self._next is not None:
            self._next.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.resume_reading()
        elif self._next is not None:
            self._next.resume_writing()

    # The holder

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the head."""
        if self._is_over:
            return
        self._windows.close(self)
        if status == Misdirected.status:
            self._is_misdirected = True
            return
        self._has_head = True
        is_chunked = any(name == b"transfer-encoding" for name, _ in headers)
        kept = [header for header in headers if header[0] not in _NOT_PASSED_ON]
        self._client.send_head(status, kept, None if is_chunked else body_bytes)

    def response_data(self, data: bytes) -> None:
        """Send the next bytes."""
        if not self._is_over and not self._is_misdirected:
            self._client.send_data(data)

    def response_end(self) -> None:
        """Complete the response."""
        connection, self._connection = self._connection, None
        if self._is_over:
            return
        if self._is_misdirected:
            self._ask_again()
            return
        self._is_over = True
        if connection is not None and connection.trailers:
            self._client.add_trailers(connection.trailers)
        self._client.send_end()

    def response_failed(self, failure: Failure) -> None:  # noqa: ARG002
        """The holder is gone: with half a response, the client's breaks off too."""
        self._connection = None
        self._windows.close(self)
        if not self._has_head:
            self._ask_again()
        elif not self._is_over:
            self._is_over = True
            self._client.abort()

    def _close(self) -> None:
        self._windows.close(self)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
