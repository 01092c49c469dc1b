"""A connection that has left HTTP and carries frames (`wire.channel`) in both directions.

What is sent in one turn of the event loop is written once, at its end.
"""

import asyncio
from typing import cast

from wire.channel import FrameReader, FrameUser
from wire.errors import WireError

HIGH_WATER_BYTES = 1 << 20
"""Unsent bytes beyond which the peer counts as one that does not read."""


class FramedConnection(asyncio.Protocol):
    """One connection; ``is_writing_paused``: the peer reads slower than it is sent to."""

    __slots__ = ("_is_lost", "_loop", "_out", "_reader", "_transport", "_user", "is_writing_paused")

    _transport: asyncio.Transport

    def __init__(self, user: FrameUser, loop: asyncio.AbstractEventLoop) -> None:
        self._user = user
        self._loop = loop
        self._out: list[bytes] = []
        self._reader = FrameReader()
        self._is_lost = False
        self.is_writing_paused = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'lost' if self._is_lost else 'open'}>"

    def send(self, frame: bytes) -> None:
        """Send ``frame`` at the end of this turn of the loop."""
        out = self._out
        if not out:
            self._loop.call_soon(self._flush)
        out.append(frame)

    def send_last(self) -> None:
        """Let `FrameUser.last_frame` be asked at the end of this turn of the loop."""
        self.send(b"")

    def close(self) -> None:
        """Close after sending what was sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _flush(self) -> None:
        out = self._out
        if self._is_lost or not out:
            out.clear()
            return
        out.append(self._user.last_frame())
        data = b"".join(out)
        out.clear()
        if data:
            self._transport.write(data)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data, self._user.on_frame)
        except WireError:
            self._transport.abort()

    def pause_writing(self) -> None:
        self.is_writing_paused = True

    def resume_writing(self) -> None:
        self.is_writing_paused = False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._is_lost = True
        self._out.clear()
        self._user.link_lost(self)
