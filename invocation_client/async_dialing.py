"""Makes connections for tasks: TCP, a proxy's tunnel, TLS, and the server's SETTINGS."""

import asyncio
import socket
import ssl

import httpx

from invocation_client.async_connection import AsyncConnection
from invocation_client.connection import ConnectionCore
from invocation_client.failures import CallFailed
from invocation_client.origins import Origin
from invocation_client.tunnel import TunnelReply, connect_request

_TLS_END_S = 1.0
"""How long the end of a connection waits for the server's part of it."""


class AsyncDialer:
    """``proxy``: through it, with CONNECT; ``context``: for servers with TLS."""

    def __init__(self, context: ssl.SSLContext, proxy: httpx.Proxy | None) -> None:
        self._context = context
        self._proxy = proxy

    async def dial(
        self, origin: Origin, core: ConnectionCore, deadline: float | None
    ) -> AsyncConnection:
        """Return a new connection that has started.

        Raises `httpx.ConnectTimeout` at ``deadline``, `httpx.ProxyError` if the proxy refuses, else
        `httpx.ConnectError`.
        """
        connection = AsyncConnection(core)
        try:
            async with asyncio.timeout_at(deadline):
                if self._proxy is None:
                    await self._connect(connection, origin, deadline)
                else:
                    await self._connect_through(self._proxy, connection, origin, deadline)
                await connection.wait_started()
        except TimeoutError:
            connection.abort()
            raise httpx.ConnectTimeout(f"no connection to {origin.authority} in time") from None
        except (OSError, CallFailed) as error:
            connection.abort()
            raise httpx.ConnectError(f"no connection to {origin.authority}: {error}") from error
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _connect(
        self, connection: AsyncConnection, origin: Origin, deadline: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        connected = await _reach(origin, deadline)
        if not origin.is_secure:
            await loop.create_connection(lambda: connection, sock=connected)
            return
        transport, _ = await loop.create_connection(
            lambda: connection,
            sock=connected,
            ssl=self._context,
            server_hostname=origin.certified_name,
            ssl_shutdown_timeout=_TLS_END_S,
        )
        _check_protocol(transport)

    async def _connect_through(
        self,
        proxy: httpx.Proxy,
        connection: AsyncConnection,
        origin: Origin,
        deadline: float | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        connected = await _reach(Origin.of(proxy.url), deadline)
        transport, tunnel = await loop.create_connection(_Tunnel, sock=connected)
        try:
            transport.write(connect_request(origin, proxy))
            await tunnel.opened
            tunnel.check(is_empty=origin.is_secure)
            if origin.is_secure:
                await self._secure(connection, transport, origin)
            else:
                transport.set_protocol(connection)
                connection.connection_made(transport)
                connection.data_received(tunnel.rest)
        except BaseException:
            transport.abort()
            raise

    async def _secure(
        self, connection: AsyncConnection, transport: asyncio.Transport, origin: Origin
    ) -> None:
        secured = await asyncio.get_running_loop().start_tls(
            transport,
            connection,
            self._context,
            server_hostname=origin.certified_name,
            ssl_shutdown_timeout=_TLS_END_S,
        )
        assert secured is not None
        connection.connection_made(secured)
        _check_protocol(secured)


async def _reach(hop: Origin, deadline: float | None) -> socket.socket:
    """Connect to one of the addresses: each has its part of the time, so that one may be dead."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    failure = OSError("the host has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        left = None if deadline is None else deadline - loop.time()
        try:
            connected = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error
            continue
        connected.setblocking(False)
        try:
            async with asyncio.timeout(None if left is None else left / (len(addresses) - number)):
                await loop.sock_connect(connected, address)
        except BaseException as error:
            connected.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return connected
    raise failure


class _Tunnel(asyncio.Protocol):
    """Waits for the proxy's response; ``rest`` is what has come after it."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rest = b""
        self._is_lost = False
        self._reply = TunnelReply()

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            self.rest += data
            return
        try:
            if self._reply.receive(data):
                self.rest = self._reply.rest
                self.opened.set_result(None)
        except httpx.ProxyError as error:
            self.opened.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._is_lost = True
        self.data_received(b"")

    def check(self, *, is_empty: bool) -> None:
        """Raise if the tunnel is closed again, or not empty though it has to be."""
        if self._is_lost:
            raise httpx.ProxyError("the proxy closed the tunnel")
        if is_empty and self.rest:
            raise httpx.ProxyError("the proxy sent more than the head of its response")


def _check_protocol(transport: asyncio.BaseTransport) -> None:
    secured: ssl.SSLObject = transport.get_extra_info("ssl_object")
    if secured.selected_alpn_protocol() != "h2":
        raise OSError("the server does not offer HTTP/2 (ALPN)")
