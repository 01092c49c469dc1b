"""A client's connection whose peer's machine may vanish without a word."""

import asyncio
from typing import cast

from http1.peer import Silence, keep_alive


class WatchedConnection(asyncio.Protocol):
    """The transport of a connection, and what the kernel knows of its peer."""

    __slots__ = ("_silence", "_transport")

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._silence = Silence()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the connection is open."""
        self._transport = cast(asyncio.Transport, transport)

    def keep_alive(self, silent_s: float) -> None:
        """End the connection if its idle peer answers nothing for about ``silent_s`` seconds."""
        connected = self._transport.get_extra_info("socket")
        if connected is not None:
            keep_alive(connected, silent_s)

    def silent_s(self, now: float) -> float:
        """Return how long bytes that were sent have waited for an acknowledgement."""
        return self._silence.seconds(self._transport.get_extra_info("socket"), now)
