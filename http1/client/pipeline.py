"""Pipelined POSTs: complete small requests on one connection (RFC 9112 §9.3.2).

For servers that respond to a POST late, when its content has been passed on: waiting for
each response would leave the connection idle. No POST is sent behind one that has waited long,
because its receiver may be slow. Only the statuses of the responses count; httptools parses the
rest, which is dropped.
"""

import asyncio
from collections import deque
from typing import Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from http1.client.watched import WatchedConnection

MAX_OUTSTANDING = 32
MAX_WAIT_S = 0.5
"""Maximum wait of a POST for its response; no further POST is sent behind one that waits longer."""


class PostCallbacks(Protocol):
    """Callbacks for one POST; exactly one of them is called."""

    def post_answered(self, status: int) -> None:
        """The server has responded with ``status``."""

    def post_broken(self, *, is_unread: bool = False) -> None:
        """The connection broke; ``is_unread``: the server had announced not to read the POST."""


class PipelineOwner(Protocol):
    """Keeps the pipelines."""

    def pipeline_lost(self, pipeline: "Pipeline") -> None:
        """``pipeline`` is closed. Called before the callbacks of its outstanding POSTs."""


class Pipeline(WatchedConnection):
    """A connection that carries only complete POSTs. ``idle_since`` is loop time in seconds."""

    __slots__ = (
        "_front_since",
        "_is_close_announced",
        "_is_writing_paused",
        "_loop",
        "_outstanding",
        "_owner",
        "_parser",
        "idle_since",
        "is_lost",
    )

    def __init__(self, owner: PipelineOwner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._owner = owner
        self._loop = loop
        self._parser = HttpResponseParser(self)
        self._outstanding: deque[PostCallbacks] = deque()
        self._front_since = 0.0
        self._is_writing_paused = False
        self._is_close_announced = False
        self.idle_since = loop.time()
        self.is_lost = False

    def __repr__(self) -> str:
        state = "lost" if self.is_lost else f"{len(self._outstanding)} outstanding"
        return f"<{type(self).__name__} {state}>"

    def has_room(self, now: float) -> bool:
        """Whether one more POST may be sent."""
        if self._is_writing_paused or self._is_close_announced or self._transport.is_closing():
            return False
        waiting = len(self._outstanding)
        return waiting == 0 or (waiting < MAX_OUTSTANDING and now - self._front_since < MAX_WAIT_S)

    def is_idle(self) -> bool:
        """Whether nothing is outstanding."""
        return not self._outstanding

    def post(self, callbacks: PostCallbacks, message: bytes, now: float) -> None:
        """Send ``message``, a whole POST; ``now`` is loop time in seconds."""
        outstanding = self._outstanding
        if not outstanding:
            self._front_since = now
        outstanding.append(callbacks)
        self._transport.write(message)

    def close(self) -> None:
        """Close at once; outstanding POSTs get `post_broken`."""
        self._transport.abort()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the reason does not matter
        self.is_lost = True
        outstanding, self._outstanding = self._outstanding, deque()
        self._owner.pipeline_lost(self)
        for callbacks in outstanding:
            callbacks.post_broken(is_unread=self._is_close_announced)

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False

    # httptools

    def on_message_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if status < 200:
            return
        outstanding = self._outstanding
        if not outstanding or self._is_close_announced:
            self._transport.abort()
            return
        callbacks = outstanding.popleft()
        if not parser.should_keep_alive():
            # Further requests on this connection get no response (RFC 9112 §9.6).
            self._is_close_announced = True
            self._transport.abort()
        self._front_since = self.idle_since = self._loop.time()
        callbacks.post_answered(status)
