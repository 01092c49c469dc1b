"""What the kernel knows about a connection's peer.

A machine that fails, or whose network is cut, sends neither FIN nor reset. Two things notice it:

* `keep_alive`: the kernel asks an idle peer, and resets the connection if nothing answers. It does
  not ask while bytes that were sent are not acknowledged, and sends these for about 15 minutes.
* `Silence`: how long such bytes have waited for any acknowledgement. A live peer acknowledges also
  while it reads nothing: its kernel answers the probes of a closed window. TCP_USER_TIMEOUT would
  end the connection of such a slow reader too (Linux 5.11 and later).

A request that was sent while the server closed the connection may be sent again only if the server
cannot have read it. The kernel knows: the server's FIN acknowledges all that arrived before it (RFC
9293 §3.4). A reset without a FIN proves nothing: it may overtake a delayed acknowledgement.
"""

import asyncio
import ctypes
import socket
import struct
import sys
from contextlib import suppress
from itertools import starmap
from math import inf

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_ACKED_AT = 120
_UNSENT_AT = 144
_SENT_AT = 200
_INFO_BYTES = 216
_PROBES_AT = 3
_UNACKED_AT = 24
_ACK_RECEIVED_AT = 56
_SILENCE_BYTES = 60
"""``struct tcp_info`` in ``linux/tcp.h``: the first four since Linux 4.19. Not elsewhere."""
_CLOSE_WAIT = 8
"""The state, in the first byte, once the peer's FIN has arrived (tcp(7))."""
_NO_LINGER = struct.pack("ii", 1, 0)
"""``struct linger``."""
_KEEPALIVE_PROBES = 3
_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("HBBI")
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte with the flags, of the TCP header
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # only SYN:
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # else take all of it
)
"""Instructions of a socket filter (``linux/filter.h``)."""


def keep_alive(connected: socket.socket, silent_s: float) -> None:
    """End ``connected`` if its idle peer answers nothing for about ``silent_s`` seconds.

    Connections that a listening socket accepts inherit it (Linux).
    """
    if connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        idle_s = max(int(silent_s / 3), 1)
        interval_s = max(int((silent_s - idle_s) / _KEEPALIVE_PROBES), 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def ignore_new(listening: socket.socket) -> None:
    """Make a listening socket ignore new connections, and go on with those that have begun.

    The kernel drops each SYN (RFC 9293 §3.5) as if it were lost on the way: the client sends it
    again after a second. Does nothing where there are no socket filters.
    """
    if not sys.platform.startswith("linux"):
        return
    program = ctypes.create_string_buffer(b"".join(starmap(_INSTRUCTION.pack, _DROP_SYN)))
    described = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def unaccepted(listening: socket.socket) -> int:
    """Return how many connections wait to be accepted; 0 where the kernel does not tell."""
    if _TCP_INFO is None:
        return 0
    return _u32(listening.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _SILENCE_BYTES), _UNACKED_AT)


def reset_on_close(connected: socket.socket) -> None:
    """Let the end of the connection be a reset (``SO_LINGER``, socket(7)). Raises `OSError`."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def has_sent_fin(connected: socket.socket) -> bool:
    """Return whether the peer has sent its FIN, read or not; False where the kernel does not tell.

    Raises `OSError`.
    """
    if not sys.platform.startswith("linux") or connected.family == socket.AF_UNIX:
        return False
    return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE_WAIT


class Silence:
    """How long bytes that were sent have waited for an acknowledgement."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = inf

    @property
    def is_waiting(self) -> bool:
        """Whether some bytes were not acknowledged at the last check."""
        return self._since != inf

    def seconds(self, connected: socket.socket | None, now: float) -> float:
        """Return the seconds up to ``now``; to be called every few seconds.

        0 if everything is acknowledged, and where the kernel does not tell.
        """
        if _TCP_INFO is None or connected is None or connected.family == socket.AF_UNIX:
            return 0.0
        try:
            info = connected.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _SILENCE_BYTES)
        except OSError:
            return 0.0
        unacked, ack_ms = _u32(info, _UNACKED_AT), _u32(info, _ACK_RECEIVED_AT)
        if not unacked and not info[_PROBES_AT]:
            self._since = inf
            return 0.0
        self._since = min(self._since, now)
        # An acknowledgement of earlier bytes, or of a probe, is a sign of life too.
        return now - max(self._since, now - ack_ms / 1000)


def unconfirmed_bytes(transport: asyncio.BaseTransport) -> int:
    """Return how many of the bytes written are not acknowledged, 0 if that is not known."""
    connected = transport.get_extra_info("socket")
    if _TCP_INFO is None or connected is None:
        return 0
    try:
        info = connected.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES)
    except OSError:
        return 0
    if len(info) < _INFO_BYTES:
        return 0
    acked: int = struct.unpack_from("=Q", info, _ACKED_AT)[0]
    unsent: int = struct.unpack_from("=I", info, _UNSENT_AT)[0]
    sent, repeated = struct.unpack_from("=QQ", info, _SENT_AT)
    # The SYN counts as acknowledged and not as sent.
    return int(sent - repeated + unsent + 1 - acked)


def _u32(info: bytes, at: int) -> int:
    value: int = struct.unpack_from("=I", info, at)[0]
    return value
