"""Complete small answers over one connection, one behind the other (RFC 9112 §9.3.2).

A POST is answered only when the client has read the response, so waiting for each answer would
leave the connection idle; what is sent here is small enough to be taken into the client's socket
buffer. Nothing is sent behind a POST that has waited long: its client may be slow after all.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_OUTSTANDING = 32
MAX_WAIT_S = 0.5
"""Behind a POST that has waited so long, no other is sent."""


class Posted(Protocol):
    """Callbacks for one POST."""

    def post_answered(self, status: int) -> None:
        """The server has answered."""

    def post_broken(self, *, is_unread: bool = False) -> None:
        """The connection broke; ``is_unread``: the server had said that it would not read it."""


class Owner(Protocol):
    """Keeps the pipelines."""

    def pipeline_lost(self, pipeline: "Pipeline") -> None:
        """It is closed. Called before its jobs are told."""


class Pipeline(asyncio.Protocol):
    """One connection that carries only complete POSTs. ``idle_since`` is loop time in seconds."""

    __slots__ = (
        "_front_since",
        "_is_congested",
        "_is_refused",
        "_loop",
        "_outstanding",
        "_owner",
        "_parser",
        "_transport",
        "idle_since",
        "is_lost",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser = HttpResponseParser(self)
        self._outstanding: deque[Posted] = deque()
        self._front_since = 0.0
        self._is_congested = False
        self._is_refused = False
        self.idle_since = loop.time()
        self.is_lost = False

    def has_room(self, now: float) -> bool:
        """Whether one more POST may be sent."""
        if self._is_congested or self._is_refused or self._transport.is_closing():
            return False
        waiting = len(self._outstanding)
        return waiting == 0 or (waiting < MAX_OUTSTANDING and now - self._front_since < MAX_WAIT_S)

    def is_idle(self) -> bool:
        """Whether nothing is outstanding."""
        return not self._outstanding

    def post(self, job: Posted, message: bytes, now: float) -> None:
        """Send ``message``, the whole POST that carries the answer of ``job``."""
        outstanding = self._outstanding
        if not outstanding:
            self._front_since = now
        outstanding.append(job)
        self._transport.write(message)

    def close(self) -> None:
        """Close at once; outstanding jobs are told."""
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  told either way
        self.is_lost = True
        outstanding, self._outstanding = self._outstanding, deque()
        self._owner.pipeline_lost(self)
        for job in outstanding:
            job.post_broken(is_unread=self._is_refused)

    def pause_writing(self) -> None:
        self._is_congested = True

    def resume_writing(self) -> None:
        self._is_congested = False

    # httptools

    def on_message_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if status < 200:
            return
        outstanding = self._outstanding
        if not outstanding or self._is_refused:
            self._transport.abort()
            return
        job = outstanding.popleft()
        if not parser.should_keep_alive():
            # What follows on this connection will not be answered (RFC 9112 §9.6).
            self._is_refused = True
            self._transport.abort()
        self._front_since = self.idle_since = self._loop.time()
        job.post_answered(status)
