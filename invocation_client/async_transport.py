"""`AsyncHttp2Transport`: an httpx transport for tasks of one asyncio loop."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import httpx

from invocation_client.async_connection import AsyncCall, AsyncConnection
from invocation_client.async_dialing import AsyncDialer
from invocation_client.connection import CLOSED
from invocation_client.failures import CallFailed, Resends
from invocation_client.options import TransportOptions, tls_context
from invocation_client.origins import CallTimeouts, Origin
from invocation_client.request_head import Fields, has_body, request_fields
from invocation_client.tunnel import read_proxy


class AsyncHttp2Transport(httpx.AsyncBaseTransport):
    """HTTP/2 with PINGs, for `httpx.AsyncClient` on one asyncio loop at a time; not for trio.

    On the next loop it begins with new connections. Raises `RuntimeError` while another one runs.
    Everything else is as in `Http2Transport`, options included.
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
        self._dialer = AsyncDialer(tls_context(verify, cert), read_proxy(proxy))
        self._origins: dict[Origin, _AsyncOrigin] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return when the response head has come.

        Raises `httpx.TransportError`: ``docs/python-client.md`` lists the kinds.
        """
        origin = Origin.called_by(request)
        fields = request_fields(request)
        timeouts = CallTimeouts.of(request)
        resends = Resends(is_repeatable=isinstance(request.stream, httpx.ByteStream))
        while True:
            call = await self._connections_to(origin).open(
                fields, is_whole=not has_body(request), connect_s=timeouts.connect_s
            )
            try:
                return await _respond(call, request, timeouts)
            except CallFailed as failed:
                call.cancel()
                if not resends.take(failed.failure):
                    raise failed.exception() from None
            except BaseException:
                call.cancel()
                raise

    async def aclose(self) -> None:
        """Close all connections; calls that are open raise `httpx.ReadError`."""
        if asyncio.get_running_loop() is self._loop:
            for origin in list(self._origins.values()):
                await origin.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def _connections_to(self, origin: Origin) -> "_AsyncOrigin":
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and self._loop.is_running():
                raise RuntimeError("the transport is in use on another event loop")
            self._loop, self._origins = loop, {}
        found = self._origins.get(origin)
        if found is None:
            found = self._origins[origin] = _AsyncOrigin(origin, self._dialer, self._options)
        return found


class _AsyncOrigin:
    """The connections to one server. One task at a time makes a new one, the others wait."""

    def __init__(self, origin: Origin, dialer: AsyncDialer, options: TransportOptions) -> None:
        self._origin = origin
        self._dialer = dialer
        self._options = options
        self._dialing = asyncio.Lock()
        self._connections: tuple[AsyncConnection, ...] = ()
        self._closings = 0

    async def open(self, fields: Fields, *, is_whole: bool, connect_s: float | None) -> AsyncCall:
        loop = asyncio.get_running_loop()
        deadline = None if connect_s is None else loop.time() + connect_s
        closings = self._closings
        while True:
            for connection in self._connections:
                if (call := connection.open(fields, is_whole=is_whole)) is not None:
                    return call
            try:
                async with asyncio.timeout_at(deadline), self._dialing:
                    await self._make_room(deadline)
            except TimeoutError:
                text = f"no connection to {self._origin.authority} in time"
                raise httpx.ConnectTimeout(text) from None
            if self._closings != closings:
                await self._close_connections()
                raise CLOSED.exception()

    async def aclose(self) -> None:
        self._closings += 1
        await self._close_connections()

    async def _close_connections(self) -> None:
        for connection in self._connections:
            await connection.aclose()

    async def _make_room(self, deadline: float | None) -> None:
        usable = tuple(one for one in self._connections if not one.is_closed)
        if not any(one.can_open for one in usable):
            core = self._options.new_core(asyncio.get_running_loop().time())
            usable = (*usable, await self._dialer.dial(self._origin, core, deadline))
        self._connections = usable


async def _respond(
    call: AsyncCall, request: httpx.Request, timeouts: CallTimeouts
) -> httpx.Response:
    if has_body(request):
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for part in request.stream:
            if not await call.send(part, timeouts.write_s):
                break
        call.end()
    await call.wait_head(timeouts.read_s)
    return httpx.Response(
        call.stream.status,
        headers=call.stream.headers,
        stream=_AsyncBody(call, timeouts.read_s),
        extensions={
            "http_version": b"HTTP/2",
            "stream_id": call.stream.id,
            "trailing_headers": call.stream.trailers,
        },
    )


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, call: AsyncCall, read_s: float | None) -> None:
        self._call = call
        self._read_s = read_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while data := await self._call.read(self._read_s):
                yield data
        except CallFailed as failed:
            raise failed.exception() from None
        finally:
            self._call.cancel()

    async def aclose(self) -> None:
        self._call.cancel()
