"""Long responses that are made in parts, one in each turn of the event loop."""

import asyncio
from collections.abc import Iterator

from http1.stream import IGNORED, Headers, NullRequestStream, RequestStream, ResponseWriter


def send_parts(
    client: ResponseWriter, headers: Headers, parts: Iterator[bytes], *, is_head: bool
) -> RequestStream:
    """Send a 200 with the body ``parts``, without them if the method is HEAD.

    A part may be empty. None is made while the client reads slower than they are written.
    """
    client.send_head(200, headers, None)
    if is_head:
        client.send_end()
        return IGNORED
    return _Parts(client, parts)


class _Parts(NullRequestStream):
    __slots__ = ("_client", "_is_due", "_is_over", "_is_paused", "_loop", "_parts")

    def __init__(self, client: ResponseWriter, parts: Iterator[bytes]) -> None:
        self._client = client
        self._parts = parts
        self._is_due = False
        self._is_paused = False
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._send_soon()

    def request_broken(self) -> None:
        """Stop: the client has left."""
        self._is_over = True

    def pause_writing(self) -> None:
        """Make no more parts for now."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Make the next parts."""
        self._is_paused = False
        self._send_soon()

    def _send_soon(self) -> None:
        if not self._is_due and not self._is_over:
            self._is_due = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._is_due = False
        if self._is_over or self._is_paused:
            return
        part = next(self._parts, None)
        if part is None:
            self._is_over = True
            self._client.send_end()
            return
        if part:
            self._client.send_data(part)
        self._send_soon()
