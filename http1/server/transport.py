"""One peer's connection below any HTTP version: what leaves it, how it ends, how long it may take.

Writes of one turn of the loop leave as one `transport.write`: two writes cost twice the system
time of one, and uvloop's own gathering (writev) costs nearly as much.
"""

import asyncio
import os
import socket
import struct
import sys
from contextlib import suppress
from math import inf
from typing import Final, cast

from http1.server.connections import Connections
from http1.server.http_error import Refusal, encode_refusal
from wire.ids import uuid4_text

MAX_REFUSED_CONNECTIONS = 256
"""So many above the limit are answered 503 at a time; what comes beyond them is reset."""

OPEN: Final = 1
LINGERING: Final = 2
CLOSING: Final = 3
LOST: Final = 4

PROBE_AFTER_S = 0.02
"""When a half-closed peer is looked at for the first time; then at every check."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class PeerConnection(asyncio.Protocol):
    """The transport's side of a connection; an HTTP version adds what the bytes mean.

    It adds `refuse`, `peer_lost`, `time_is_up` and `drain`, and looks at ``_state`` before it uses
    what arrives: only in ``OPEN`` does it mean anything.
    """

    __slots__ = (
        "_connections",
        "_deadline",
        "_drained_bytes",
        "_is_corked",
        "_is_probed",
        "_is_reading",
        "_limits",
        "_lingered_bytes",
        "_out",
        "_out_bytes",
        "_sent_bytes",
        "_stalled_since",
        "_state",
        "_transport",
        "is_writing_paused",
    )

    _transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._limits = connections.limits
        self._state = OPEN
        self._deadline = inf
        self._is_reading = True
        self._is_corked = False
        self._is_probed = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._sent_bytes = 0
        self._drained_bytes = 0
        self._stalled_since = inf
        self._lingered_bytes = 0
        self.is_writing_paused = False

    def refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, or ends as none, and close."""
        raise NotImplementedError

    def peer_lost(self) -> None:
        """Nothing can be sent any more: tell whoever serves this peer, then `reset`."""
        raise NotImplementedError

    def sends_no_more(self) -> None:
        """The peer has closed its direction, if not both."""
        raise NotImplementedError

    def time_is_up(self) -> None:
        """The time given to `wait` has passed on an open connection."""
        raise NotImplementedError

    def drain(self) -> None:
        """Close as soon as no exchange is open."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._limits.high_water_bytes)
        self.wait(self._limits.idle_timeout_s)
        connections = self._connections
        connections.add(self)
        excess = len(connections) - self._limits.max_connections
        if excess > MAX_REFUSED_CONNECTIONS:
            self.reset()
        elif excess > 0:
            self.refuse(Refusal(503, "too-many-connections", "Too many connections are open"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """The connection is gone."""
        self._state = LOST
        self._out.clear()
        self._connections.remove(self)

    # Out

    def write(self, data: bytes) -> None:
        """Send ``data`` with this turn of the loop, together with what else it writes."""
        out = self._out
        if not out and not self._is_corked:
            self._connections.flush_soon(self)
        out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= self._connections.coalesced_bytes:
            self.flush()

    def write_refusal(self, refusal: Refusal, target: bytes, request_id: str) -> None:
        """Send a refusal of ``target``, under an id of its own if ``request_id`` is empty."""
        request_id = request_id or fresh_id()
        self.write(encode_refusal(refusal, target, request_id, self._connections.date_line))

    def flush(self) -> None:
        """Give what was written to the transport. May call `pause_writing`."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._out_bytes = 0
            self._sent_bytes += len(data)
            self._transport.write(data)

    def own_header_lines(self, date: bool, server: bool) -> bytes:
        """Return the lines that the edge adds to a head."""
        lines = self._connections.date_line if date else b""
        return lines + self._connections.server_line if server else lines

    # In

    def pause_reading(self) -> None:
        """Read no more from the socket."""
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the socket again."""
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    def discard(self, size: int) -> None:
        """Count what arrived and means nothing any more."""
        self._lingered_bytes += size
        if self._lingered_bytes > self._limits.linger_bytes and self._state == LINGERING:
            self._state = CLOSING
            self._transport.close()

    # Ends

    def close(self, *, linger: bool) -> None:
        """Close after what is written; ``linger``: the client may still be sending.

        Closing under a sender's hands makes the kernel send a reset, which can destroy the answer
        before the client has read it (RFC 9112 §9.6).
        """
        self.flush()
        if self._state != OPEN or self._transport.is_closing():
            return
        if linger:
            self._state = LINGERING
            self.wait(self._limits.linger_s)
            self._transport.write_eof()
            self.resume_reading()
        else:
            self._state = CLOSING
            self._deadline = inf
            self._transport.close()

    def reset(self) -> None:
        """End at once so that the peer sees a broken stream, also when only EOF would end it."""
        if self._state == LOST:
            # The socket's number may belong to another connection already.
            return
        self._state = CLOSING
        self._out.clear()
        with suppress(OSError):
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    # Time

    def wait(self, seconds: float) -> None:
        """Give the peer so long, from now, for what it has to do next."""
        connections = self._connections
        self._deadline = connections.now + connections.slack_s + seconds

    def check(self, now: float) -> None:
        """Look at every limit in time."""
        if self._deadline <= now:
            self._deadline = inf
            if self._state == LINGERING:
                self._state = CLOSING
                self._transport.close()
            elif self._state == OPEN:
                self.time_is_up()
        elif self._sent_bytes != self._drained_bytes:
            self._check_writes(now)
        if not self._is_reading:
            self.check_peer()

    def check_peer(self) -> None:
        """Notice a peer that left a socket of which nothing is read: the loop does not see it."""
        if self._state != OPEN:
            return
        peer = self._socket()
        if peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.peer_lost()
        elif not self._is_probed and _has_closed(peer):
            self.sends_no_more()

    def _check_writes(self, now: float) -> None:
        """Reset a client that takes nothing of what waits for it."""
        waiting_bytes = self._transport.get_write_buffer_size()
        drained_bytes = self._sent_bytes - waiting_bytes
        if drained_bytes != self._drained_bytes or self._stalled_since == inf:
            self._drained_bytes = drained_bytes
            self._stalled_since = now if waiting_bytes else inf
        elif now - self._stalled_since > self._limits.write_stall_s:
            self.peer_lost()

    def _socket(self) -> socket.socket:
        return cast(socket.socket, self._transport.get_extra_info("socket"))


def fresh_id() -> str:
    """Return an id for a request that is refused."""
    return uuid4_text(os.urandom(16))


def _has_closed(peer: socket.socket) -> bool:
    """Whether the peer has sent its FIN, read or not (Linux; tcp(7), first byte of TCP_INFO)."""
    if not sys.platform.startswith("linux") or peer.family == socket.AF_UNIX:
        return False
    return peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE_WAIT


_TCP_CLOSE_WAIT = 8
