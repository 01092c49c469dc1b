"""A socket whose writes are batched: what all frames of one turn of the loop leave in.

Everything sent within one turn leaves in one ``transport.write``. While the socket is full, frames
wait here up to a limit; a frame beyond it is refused at once.
"""

import asyncio
from typing import cast

_SOCKET_BUFFER_BYTES = 1 << 20
_LONG_READ_BYTES = 131_072
"""After a read of more bytes, the next one waits for the next turn of the loop: uvloop reads up to
32 times in one turn."""
_EARLY_FRAMES = 8
"""With this many frames, do not wait for the end of the loop's turn, which may be a millisecond
away when many connections are active: the broker and its clients would be idle meanwhile."""


class BatchedSocket(asyncio.Protocol):
    """One connection to a broker. ``in_bytes``, ``out_bytes`` and ``out_frames`` count.

    A subclass implements `read` and `lost`.
    """

    def __init__(self, max_out_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._call_soon = self._loop.call_soon
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._max_out_bytes = max_out_bytes
        self._is_scheduled = self._is_blocked = self._is_lost = False
        self._reason = ""
        self.in_bytes = self.out_bytes = self.out_frames = 0

    def read(self, data: bytes) -> None:
        """Handle what was read."""
        raise NotImplementedError

    def lost(self, reason: str) -> None:
        """The connection has ended. Called once."""
        raise NotImplementedError

    # Sending

    def send_frame(self, frame: bytes) -> bool:
        """Append ``frame`` to the buffer; return `False` when it is full or the link is lost."""
        size = self._out_bytes + len(frame)
        if size > self._max_out_bytes or self._is_lost:
            return False
        self._out.append(frame)
        self._out_bytes = size
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._flush)
        elif len(self._out) >= _EARLY_FRAMES:
            self._flush_now()
        return True

    def _flush(self) -> None:
        self._is_scheduled = False
        self._flush_now()

    def _flush_now(self) -> None:
        out = self._out
        if not out or self._is_blocked or self._transport is None:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        self.out_frames += len(out)
        out.clear()
        self._out_bytes = 0
        self.out_bytes += len(data)
        self._transport.write(data)

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not always a subclass: uvloop has transports of its own.
        self.secured(cast(asyncio.Transport, transport))

    def secured(self, transport: asyncio.Transport) -> None:
        """Take ``transport``: the first, or the one with TLS around it."""
        self._transport = transport
        transport.set_write_buffer_limits(high=_SOCKET_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        self.in_bytes += len(data)
        if len(data) > _LONG_READ_BYTES and self._transport is not None:
            self._transport.pause_reading()
            self._call_soon(self._read_on)
        self.read(data)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._is_blocked = True

    def resume_writing(self) -> None:
        self._is_blocked = False
        self._flush_now()

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._out.clear()
        self._out_bytes = 0
        self._reason = self._reason or (str(error) if error else "closed by the server")
        self.lost(self._reason)

    def abort(self, reason: str) -> None:
        """End now."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """End when all frames are written."""
        self._reason = self._reason or reason
        self._flush_now()
        if self._transport is not None:
            self._transport.close()
