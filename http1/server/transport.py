"""One peer's connection below any HTTP version: what it sends, how it ends, its time limits.

Writes of one turn of the event loop become one `transport.write`: two writes cost twice the system
time of one, and uvloop's own gathering (writev) costs nearly as much.
"""

import asyncio
import fcntl
import socket
import sys
import termios
from contextlib import suppress
from enum import IntEnum
from math import inf
from typing import Final, cast

from http1.peer import Silence, has_sent_fin, reset_on_close
from http1.server.connections import Connections
from http1.stream import Peer


class ConnectionState(IntEnum):
    """Whether received bytes still count, and what is left to do."""

    OPEN = 1
    """Received bytes are requests."""
    LINGERING = 2
    """Our side is closed; received bytes are discarded until the peer closes too."""
    CLOSING = 3
    """The transport closes when it has sent what was written, or at once after a reset."""
    LOST = 4
    """The transport is gone."""


# Annotated, so that mypy does not take a state for unchanged after a call.
OPEN: Final[ConnectionState] = ConnectionState.OPEN
LINGERING: Final[ConnectionState] = ConnectionState.LINGERING
CLOSING: Final[ConnectionState] = ConnectionState.CLOSING
LOST: Final[ConnectionState] = ConnectionState.LOST


def _address_of(peername: object) -> str:
    """Return the IP address in a socket's peer name, without a zone; empty for a Unix socket."""
    return str(peername[0]).partition("%")[0] if isinstance(peername, tuple) else ""


class PeerConnection(asyncio.Protocol):
    """The transport's side of a connection; an HTTP version's protocol derives from it.

    ``_state`` says whether received bytes still count, ``_deadline`` is in the time of
    `Connections.now`.
    """

    __slots__ = (
        "_acked_bytes",
        "_connections",
        "_deadline",
        "_drained_bytes",
        "_is_corked",
        "_is_reading",
        "_limits",
        "_lingered_bytes",
        "_next_ack_check",
        "_out",
        "_out_bytes",
        "_peer",
        "_sent_bytes",
        "_silence",
        "_stalled_since",
        "_state",
        "_transport",
        "is_writing_paused",
    )

    _peer: Peer
    _transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._limits = connections.limits
        self._state = OPEN
        self._deadline = inf
        self._is_reading = True
        self._is_corked = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._sent_bytes = 0
        self._drained_bytes = 0
        self._stalled_since = inf
        self._silence: Silence | None = None
        self._acked_bytes = 0
        self._next_ack_check = 0.0
        self._lingered_bytes = 0
        self.is_writing_paused = False

    def __repr__(self) -> str:
        reading = "reading" if self._is_reading else "reading paused"
        writing = "writing paused" if self.is_writing_paused else "writing"
        return f"<{type(self).__name__} {self._state.name}, {reading}, {writing}>"

    @property
    def is_reading(self) -> bool:
        """Whether the socket is read."""
        return self._is_reading

    @property
    def unsent_bytes(self) -> int:
        """Bytes given to the transport that it has not sent yet."""
        return self._transport.get_write_buffer_size()

    @property
    def peer_socket(self) -> socket.socket:
        """The connected socket."""
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up the transport and the idle timeout."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._limits.high_water_bytes)
        # Read now: a connection that is closed has no address any more.
        scheme = b"http" if transport.get_extra_info("sslcontext") is None else b"https"
        self._peer = Peer(_address_of(transport.get_extra_info("peername")), scheme)
        self.wait(self._limits.idle_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Drop what was not sent."""
        self._state = LOST
        self._out.clear()

    # Out

    def write(self, data: bytes) -> None:
        """Send ``data`` in this turn of the loop, together with the turn's other writes."""
        out = self._out
        if not out and not self._is_corked:
            self._connections.flush_soon(self)
        out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= self._connections.coalesced_bytes:
            self.flush()

    def send(self, data: bytes) -> None:
        """Send ``data`` at once, or with what waits for the end of this turn already.

        For what is the only write of its turn, as a rule: it need not wait for the turn's other
        work. May call `pause_writing`.
        """
        if self._out or self._is_corked:
            self.write(data)
        else:
            self._sent_bytes += len(data)
            self._transport.write(data)

    def flush(self) -> None:
        """Give what was written to the transport. May call `pause_writing`."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._out_bytes = 0
            self._sent_bytes += len(data)
            self._transport.write(data)

    # In

    def pause_reading(self) -> None:
        """Stop reading the socket."""
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the socket again."""
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    def discard(self, size: int) -> None:
        """Count bytes that arrived after the end; close when they are more than `linger_bytes`."""
        self._lingered_bytes += size
        if self._lingered_bytes > self._limits.linger_bytes and self._state is LINGERING:
            self.end_linger()

    # Ends

    def close(self, *, linger: bool) -> None:
        """Close after sending what is written; ``linger``: the client may still be sending.

        If a socket is closed while its peer sends, the kernel sends a reset, which can destroy the
        response before the client has read it (RFC 9112 §9.6). With TLS the client sees the end
        when it has closed, or its time is over: the response said that the connection closes.
        """
        self.flush()
        if self._state is not OPEN or self._transport.is_closing():
            return
        if linger:
            self._state = LINGERING
            self.wait(self._limits.linger_s)
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self.resume_reading()
        else:
            self._state = CLOSING
            self._deadline = inf
            self._transport.close()

    def end_linger(self) -> None:
        """Close, although the client may still be sending."""
        self._state = CLOSING
        self._transport.close()

    def reset(self) -> None:
        """End at once so that the peer sees a broken stream, also when EOF would end a response."""
        if self._state is LOST:
            # The socket's number may belong to another connection already.
            return
        self._state = CLOSING
        self._out.clear()
        with suppress(OSError):
            reset_on_close(self.peer_socket)
        self._transport.abort()

    # Time

    def wait(self, seconds: float) -> None:
        """Set the deadline for the peer's next action, ``seconds`` from now."""
        connections = self._connections
        self._deadline = connections.now + connections.slack_s + seconds

    def is_peer_gone(self, now: float) -> bool:
        """Whether the peer reads nothing or has vanished; to be called at every check."""
        sent_bytes = self._sent_bytes
        return (sent_bytes != self._drained_bytes and self.is_write_stalled(now)) or (
            sent_bytes != self._acked_bytes and self.is_peer_vanished(now)
        )

    def is_write_stalled(self, now: float) -> bool:
        """Whether the peer has read nothing for `write_stall_s`; to be called at every check."""
        waiting_bytes = self._transport.get_write_buffer_size()
        drained_bytes = self._sent_bytes - waiting_bytes
        if drained_bytes != self._drained_bytes or self._stalled_since == inf:
            self._drained_bytes = drained_bytes
            self._stalled_since = now if waiting_bytes else inf
            return False
        return now - self._stalled_since > self._limits.write_stall_s

    def is_peer_vanished(self, now: float) -> bool:
        """Whether the peer's machine gives no sign of life; to be called at every check.

        The kernel is asked only if bytes were sent since it last said that all are acknowledged.
        """
        if now < self._next_ack_check or self._sent_bytes == self._acked_bytes:
            return False
        limit_s = self._limits.vanished_s
        self._next_ack_check = now + limit_s / 8
        if self._silence is None:
            self._silence = Silence()
        silent_s = self._silence.seconds(self.peer_socket, now)
        if not self._silence.is_waiting and not self._transport.get_write_buffer_size():
            self._acked_bytes = self._sent_bytes
        return silent_s > limit_s

    # The peer's state, which the event loop does not report while the socket is not read

    def unread_bytes(self) -> int:
        """Return how many bytes have arrived that the event loop has not read."""
        unread = fcntl.ioctl(self.peer_socket.fileno(), termios.FIONREAD, bytes(4))
        return int.from_bytes(unread, sys.byteorder)

    def has_socket_error(self) -> bool:
        """Whether the connection is broken: reset, timed out, unreachable."""
        return bool(self.peer_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def has_peer_fin(self) -> bool:
        """Whether the peer has sent its FIN, read or not, as far as the kernel tells."""
        return has_sent_fin(self.peer_socket)
