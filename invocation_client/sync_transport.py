"""`Http2Transport`: an httpx transport for threads."""

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Self
from weakref import WeakSet

import httpx

from invocation_client.cancellation import present
from invocation_client.connection import CLOSED
from invocation_client.failures import CallFailed, Resends
from invocation_client.options import TransportOptions, tls_context
from invocation_client.origins import CallTimeouts, Origin
from invocation_client.request_head import Fields, has_body, request_fields
from invocation_client.sync_connection import SyncCall, SyncConnection
from invocation_client.sync_dialing import SyncDialer
from invocation_client.tunnel import read_proxy


class Http2Transport(httpx.BaseTransport):
    """HTTP/2 with PINGs, for `httpx.Client`; threads may share it.

    ``https://`` is negotiated by ALPN; ``http://`` is HTTP/2 with prior knowledge. There is one
    connection per origin; another one begins when the server allows no more streams on it or has
    sent GOAWAY. While calls are open and the server has sent nothing for ``ping_interval_s``
    seconds, a PING is sent; after ``ping_timeout_s`` more seconds of silence every call on the
    connection raises `httpx.ReadError`. None: no PINGs. A connection without calls is closed after
    ``keepalive_expiry_s`` seconds, None: never. ``verify`` and ``cert`` are those of
    `httpx.HTTPTransport`; the given context gets the ALPN protocol ``h2``. ``proxy`` is an
    ``http://`` URL: all connections are tunnels through it.

    Raises `ValueError` if a time is not above 0 or the proxy's scheme is another one.
    """

    def __init__(
        self,
        *,
        ping_interval_s: float | None = 30.0,
        ping_timeout_s: float = 10.0,
        keepalive_expiry_s: float | None = 30.0,
        verify: ssl.SSLContext | str | bool = True,
        cert: str | tuple[str, str] | tuple[str, str, str] | None = None,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
    ) -> None:
        self._options = TransportOptions(ping_interval_s, ping_timeout_s, keepalive_expiry_s)
        self._dialer = SyncDialer(tls_context(verify, cert), read_proxy(proxy))
        self._lock = threading.Lock()
        self._origins: dict[Origin, _SyncOrigin] = {}
        _all_transports.add(self)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return when the response head has come.

        Raises `httpx.TransportError`: ``docs/python-client.md`` lists the kinds.
        """
        origin = Origin.called_by(request)
        fields = request_fields(request)
        timeouts = CallTimeouts.of(request)
        resends = Resends(is_repeatable=isinstance(request.stream, httpx.ByteStream))
        cancellation = present()
        while True:
            if cancellation is not None:
                cancellation.check()
            call = self._connections_to(origin).open(
                fields, is_whole=not has_body(request), connect_s=timeouts.connect_s
            )
            try:
                if cancellation is not None:
                    cancellation.add(call)
                return _respond(call, request, timeouts)
            except CallFailed as failed:
                call.cancel()
                if not resends.take(failed.failure):
                    raise failed.exception() from None
            except BaseException:
                call.cancel()
                raise

    def close(self) -> None:
        """Close all connections; calls that are open raise `httpx.ReadError`."""
        with self._lock:
            origins = list(self._origins.values())
        for origin in origins:
            origin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    def forget_connections(self) -> None:
        """Leave all connections to the process from which this one was forked.

        Their reader threads are only there, and so may be who has a lock.
        """
        origins, self._origins = self._origins, {}
        self._lock = threading.Lock()
        for origin in origins.values():
            origin.abandon()

    def _connections_to(self, origin: Origin) -> "_SyncOrigin":
        with self._lock:
            found = self._origins.get(origin)
            if found is None:
                found = self._origins[origin] = _SyncOrigin(origin, self._dialer, self._options)
            return found


class _SyncOrigin:
    """The connections to one server. One thread at a time makes a new one, the others wait."""

    def __init__(self, origin: Origin, dialer: SyncDialer, options: TransportOptions) -> None:
        self._origin = origin
        self._dialer = dialer
        self._options = options
        self._dialing = threading.Lock()
        self._connections: tuple[SyncConnection, ...] = ()
        self._closings = 0

    def open(self, fields: Fields, *, is_whole: bool, connect_s: float | None) -> SyncCall:
        deadline = None if connect_s is None else monotonic() + connect_s
        closings = self._closings
        while True:
            for connection in self._connections:
                if (call := connection.open(fields, is_whole=is_whole)) is not None:
                    return call
            with self._dialing_until(deadline):
                usable = tuple(one for one in self._connections if not one.is_closed)
                if not any(one.can_open for one in usable):
                    core = self._options.new_core(monotonic())
                    usable = (*usable, self._dialer.dial(self._origin, core, deadline))
                self._connections = usable
            if self._closings != closings:
                self._close_connections()
                raise CLOSED.exception()

    def close(self) -> None:
        self._closings += 1
        self._close_connections()

    def abandon(self) -> None:
        for connection in self._connections:
            connection.abandon()

    def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()

    @contextmanager
    def _dialing_until(self, deadline: float | None) -> Iterator[None]:
        left = -1 if deadline is None else max(0, deadline - monotonic())
        if not self._dialing.acquire(timeout=left):
            raise httpx.ConnectTimeout(f"no connection to {self._origin.authority} in time")
        try:
            yield
        finally:
            self._dialing.release()


def _respond(call: SyncCall, request: httpx.Request, timeouts: CallTimeouts) -> httpx.Response:
    if has_body(request):
        assert isinstance(request.stream, httpx.SyncByteStream)
        for part in request.stream:
            if not call.send(part, timeouts.write_s):
                break
        call.end()
    call.wait_head(timeouts.read_s)
    return httpx.Response(
        call.stream.status,
        headers=call.stream.headers,
        stream=_SyncBody(call, timeouts.read_s),
        extensions={
            "http_version": b"HTTP/2",
            "stream_id": call.stream.id,
            "trailing_headers": call.stream.trailers,
        },
    )


class _SyncBody(httpx.SyncByteStream):
    def __init__(self, call: SyncCall, read_s: float | None) -> None:
        self._call = call
        self._read_s = read_s

    def __iter__(self) -> Iterator[bytes]:
        try:
            while data := self._call.read(self._read_s):
                yield data
        except CallFailed as failed:
            raise failed.exception() from None
        finally:
            self.close()

    def close(self) -> None:
        self._call.cancel()


_all_transports: WeakSet[Http2Transport] = WeakSet()


def _forget_all_connections() -> None:
    for transport in _all_transports:
        transport.forget_connections()


os.register_at_fork(after_in_child=_forget_all_connections)
