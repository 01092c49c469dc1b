"""Makes connections for threads: TCP, a proxy's tunnel, TLS, and the server's SETTINGS."""

import socket
import ssl
from contextlib import suppress
from time import monotonic

import httpx

from invocation_client.connection import ConnectionCore
from invocation_client.failures import CallFailed
from invocation_client.origins import Origin
from invocation_client.sync_connection import SyncConnection
from invocation_client.tunnel import TunnelReply, connect_request

_READ_BYTES = 65_536


class SyncDialer:
    """``proxy``: through it, with CONNECT; ``context``: for servers with TLS."""

    def __init__(self, context: ssl.SSLContext, proxy: httpx.Proxy | None) -> None:
        self._context = context
        self._proxy = proxy

    def dial(self, origin: Origin, core: ConnectionCore, deadline: float | None) -> SyncConnection:
        """Return a new connection that has started.

        Raises `httpx.ConnectTimeout` at ``deadline``, `httpx.ProxyError` if the proxy refuses, else
        `httpx.ConnectError`.
        """
        try:
            connected, first = self._connect(origin, deadline)
            connection = SyncConnection(connected, core, first)
            try:
                connection.wait_started(deadline)
            except BaseException:
                connection.close()
                raise
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection to {origin.authority} in time") from None
        except (OSError, CallFailed) as error:
            raise httpx.ConnectError(f"no connection to {origin.authority}: {error}") from error
        return connection

    def _connect(self, origin: Origin, deadline: float | None) -> tuple[socket.socket, bytes]:
        hop = Origin.of(self._proxy.url) if self._proxy else origin
        connected = _reach(hop, deadline)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            first = self._open_tunnel(connected, origin, deadline) if self._proxy else b""
            if origin.is_secure:
                connected.settimeout(_left_s(deadline))
                connected = self._secured(connected, origin)
        except BaseException:
            connected.close()
            raise
        return connected, first

    def _open_tunnel(
        self, connected: socket.socket, origin: Origin, deadline: float | None
    ) -> bytes:
        assert self._proxy is not None
        reply = TunnelReply()
        connected.settimeout(_left_s(deadline))
        connected.sendall(connect_request(origin, self._proxy))
        is_open = False
        while not is_open:
            connected.settimeout(_left_s(deadline))
            is_open = reply.receive(connected.recv(_READ_BYTES))
        if origin.is_secure and reply.rest:
            raise httpx.ProxyError("the proxy sent more than the head of its response")
        return reply.rest

    def _secured(self, connected: socket.socket, origin: Origin) -> ssl.SSLSocket:
        secured = self._context.wrap_socket(connected, server_hostname=origin.certified_name)
        if secured.selected_alpn_protocol() != "h2":
            with suppress(OSError):
                secured.close()
            raise OSError("the server does not offer HTTP/2 (ALPN)")
        return secured


def _reach(hop: Origin, deadline: float | None) -> socket.socket:
    """Connect to one of the addresses: each has its part of the time, so that one may be dead."""
    addresses = socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    failure = OSError("the host has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            left = _left_s(deadline)
            connected = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error
            continue
        try:
            connected.settimeout(None if left is None else left / (len(addresses) - number))
            connected.connect(address)
        except BaseException as error:
            connected.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return connected
    raise failure


def _left_s(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
