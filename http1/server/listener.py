"""Listening sockets and the connections accepted from them."""

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol, cast

from http1.peer import ignore_new, keep_alive, unaccepted
from http1.server.connections import SERVER_NAME, Connections, Http2, OnError, ServerConnection
from http1.server.limits import ServerLimits
from http1.server.protocol import Http1Protocol
from http1.stream import Dispatch
from runtime.lifecycle import Ticker

BACKLOG = 4096
"""The kernel caps it at net.core.somaxconn."""
HANDSHAKE_S = 0.25
"""Time for the last packet of a connection's handshake, which is one round trip away."""
MAX_ACCEPTING_TURNS = 100
"""The most turns of the loop for connections that wait to be accepted; each accepts many."""
MAX_PORT = 65_535


class ListenAddress(Protocol):
    """Where to listen: a Unix socket's ``path``, or ``host`` and ``port`` (0: any free port)."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def path(self) -> str: ...


class ListenError(OSError):
    """Listening on an address failed; the text is one line for people."""


class Secure(NamedTuple):
    """The first ``sockets`` of a listener speak TLS with ``context``."""

    sockets: int
    context: ssl.SSLContext


class _Closable(Protocol):
    def close(self) -> None: ...


class Listener:
    """Accepts connections until `stop_accepting`; iterates over the open ones."""

    def __init__(self, connections: Connections, addresses: Sequence[str]) -> None:
        self._connections = connections
        self._servers: list[_Closable] = []
        self._tcp: list[socket.socket] = []
        self._ticker = Ticker(connections.slack_s, connections.check)
        self.addresses = tuple(addresses)

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(self._connections)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.addresses)}: {self._connections!r}>"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, sockets: Sequence[socket.socket], secure: "Secure | None" = None) -> None:
        """Accept connections from ``sockets``; the listener owns and closes the sockets."""
        loop = self._connections.loop
        self._tcp = [one for one in sockets if one.family != socket.AF_UNIX]
        self._ticker.start()
        limits = self._connections.limits
        for number, listening in enumerate(sockets):
            keep_alive(listening, limits.vanished_s)
            if secure is not None and number < secure.sockets:
                server = await loop.create_server(
                    self._make_secure_protocol,
                    sock=listening,
                    backlog=BACKLOG,
                    ssl=secure.context,
                    ssl_handshake_timeout=limits.head_timeout_s,
                    ssl_shutdown_timeout=limits.linger_s,
                )
            else:
                is_unix = listening.family == socket.AF_UNIX
                serve = loop.create_unix_server if is_unix else loop.create_server
                server = await serve(self._make_protocol, sock=listening, backlog=BACKLOG)
            self._servers.append(server)

    def serve(self, dispatch: Dispatch) -> None:
        """Replace the dispatch: new requests go to ``dispatch``."""
        self._connections.dispatch = dispatch

    def watch_errors(self, on_error: OnError) -> None:
        """Call ``on_error`` for each error response to what is not a valid request."""
        self._connections.on_error = on_error

    def announce_end(self) -> None:
        """Let each further response tell its client that the connection closes."""
        self._connections.draining = True

    async def finish_accepting(self) -> None:
        """Stop accepting without losing a connection that the kernel has made.

        Closing a socket resets what waits in its queue, and on a port with SO_REUSEPORT the kernel
        assigns connections until then (Linux moves them only with net.ipv4.tcp_migrate_req). So the
        sockets first ignore new connections, whose clients try again after a second and reach
        another process; when those that had begun are accepted, the sockets are closed.
        """
        for listening in self._tcp:
            ignore_new(listening)
        if self._tcp:
            await asyncio.sleep(HANDSHAKE_S)
        for _ in range(MAX_ACCEPTING_TURNS):
            if not any(map(unaccepted, self._tcp)):
                break
            await asyncio.sleep(0)
        self.stop_accepting()

    def stop_accepting(self) -> None:
        """Close the listening sockets at once; open connections go on.

        The last process that listens on a Unix socket removes the socket's file.
        """
        self._tcp.clear()
        for server in self._servers:
            server.close()
        self._servers.clear()
        for address in self.addresses:
            if address.startswith("unix:"):
                _remove_stale(address.removeprefix("unix:"))

    async def drain(self, deadline: float) -> bool:
        """Close idle connections now and busy connections after their response.

        Each response says so; one that had begun before `announce_end` cannot, and its client may
        send one more request shortly after it.

        Returns True when all are closed, False at ``deadline`` (loop time).
        """
        return await self._connections.drain(deadline)

    def abort_all(self) -> None:
        """Reset every connection and stop; every request's stream gets `request_broken`."""
        self.stop_accepting()
        self._connections.reset_all()
        self._ticker.stop()

    def _make_protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new connection, which HTTP/2 may take over."""
        return Http1Protocol(self._connections)

    def _make_secure_protocol(self) -> asyncio.Protocol:
        return _Negotiated(self._connections)


class _Negotiated(asyncio.Protocol):
    """A connection with TLS: gives way to the protocol that ALPN has chosen (RFC 7301)."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connections = self._connections
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen == "h2" and connections.http2 is not None:
            protocol = connections.http2(connections)
        else:
            protocol = Http1Protocol(connections)
        cast(asyncio.Transport, transport).set_protocol(protocol)
        protocol.connection_made(transport)


def bind_sockets(
    addresses: Iterable[ListenAddress], *, reuse_port: bool = False, reserve: bool = False
) -> list[socket.socket]:
    """Return a listening socket for each address. Raises `ListenError`.

    ``reuse_port``: several processes listen on the same port and the kernel spreads connections
    over them. ``reserve``: the TCP sockets do not listen yet; see `claim`. The file of a Unix
    socket on which no process listens is replaced.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            if address.path:
                sockets.append(_bind_unix(address.path))
            else:
                sockets.append(_bind_tcp(address.host, address.port, reuse_port, not reserve))
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def claim(sockets: Iterable[socket.socket]) -> list[socket.socket]:
    """Return listening sockets in place of ``sockets``, of which some reserve a shared address.

    Each process that shares a port makes its own when it is ready, so that the kernel assigns
    connections only to processes that accept them, and to none that has died. Raises `ListenError`.
    """
    claimed = []
    for bound in sockets:
        if not bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            host, port = bound.getsockname()[:2]
            claimed.append(_bind_tcp(host, port, reuse_port=True))
            bound.close()
        else:
            claimed.append(bound)
    return claimed


async def listen(
    sockets: Sequence[socket.socket],
    dispatch: Dispatch,
    limits: ServerLimits,
    server_name: bytes = SERVER_NAME,
    http2: Http2 | None = None,
    secure: Secure | None = None,
) -> Listener:
    """Serve ``dispatch`` on ``sockets`` from `bind_sockets`.

    ``server_name`` is the value of the Server header. ``http2`` makes the protocol of connections
    that begin with its preface; without it they are refused.
    """
    connections = Connections(dispatch, limits, asyncio.get_running_loop(), server_name, http2)
    listener = Listener(connections, [name_of(listening) for listening in sockets])
    await listener.start(sockets, secure)
    return listener


def _bind_tcp(host: str, port: int, reuse_port: bool, listens: bool = True) -> socket.socket:
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if port > MAX_PORT:
        # The resolver would use it modulo 65536.
        raise ListenError(f"cannot listen on {name}: there is no such port")
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _listen_error(name, error) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit the option (Linux, BSD): no call per connection.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind(address)
        if listens:
            bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _listen_error(name, error) from None
    bound.setblocking(False)
    return bound


def _bind_unix(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        bound.bind(path)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _listen_error(f"unix:{path}", error) from None
    bound.setblocking(False)
    return bound


def _remove_stale(path: str) -> None:
    """Remove ``path`` if it is a socket on which no process listens.

    A file of another kind stays, although connecting to it is refused as well (Linux).
    """
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and _is_refused(path):
            os.unlink(path)


def _is_refused(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _listen_error(name: str, error: OSError) -> ListenError:
    return ListenError(f"cannot listen on {name}: {error.strerror or error}")


def name_of(listening: socket.socket) -> str:
    """Return the address of ``listening`` as text: ``host:port`` or ``unix:path``."""
    address = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
