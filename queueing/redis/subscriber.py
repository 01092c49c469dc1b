"""Messages of channels, on a link of their own beside the one for commands.

On one link the order of a script's own message and its reply differs from server to server. Both
links go to the master of one slot; if either is lost, or the slot moves, both count as lost.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from queueing.redis.connection import RedisConnection
from queueing.redis.errors import NotConnected, RedisError
from queueing.redis.link import Link, LinkOwner, MessageHandler, Reply, open_link
from runtime.events import emit
from runtime.repeats import Repeats
from runtime.tasks import spawn

_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 1.0

_log = logging.getLogger("queueing.redis.subscriber")


class Subscriber(LinkOwner):
    """Subscriptions to channels of one slot, kept over lost links.

    ``on_ready`` is called with the link for commands when all channels are subscribed to, and
    ``on_lost`` when that has ended.
    """

    def __init__(
        self,
        connection: RedisConnection,
        slot: int,
        on_ready: Callable[[Link], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._slot = slot
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._channels: dict[bytes, Callable[[bytes, bytes], None]] = {}
        self._main: Link | None = None
        self._link: Link | None = None
        self._is_ready = False
        self._repeats = Repeats()
        self._runner: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin; the connection may be up or down."""
        self._connection.add_listener(self)
        self._runner = spawn(self._run(), "redis-subscriber")

    async def close(self) -> None:
        """End all subscriptions."""
        self._connection.remove_listener(self)
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
        link, self._link = self._link, None
        self._is_ready = False
        if link is not None:
            link.close("closed by the client")

    @property
    def main(self) -> Link | None:
        """The link for commands beside it, `None` if it is not ready."""
        return self._main if self._is_ready else None

    @property
    def in_bytes(self) -> int:
        """How much this link has read, since it was opened."""
        return self._link.in_bytes if self._link is not None else 0

    def subscribe(self, channel: bytes, handler: MessageHandler) -> None:
        """Call ``handler`` for messages, also after the link was lost."""
        self._channels[channel] = handler
        if self._link is not None and self._is_ready:
            self._link.subscribe(channel, self._on_subscribed)

    def unsubscribe(self, channel: bytes) -> None:
        """Call it no more."""
        if self._channels.pop(channel, None) is not None and self._link is not None:
            self._link.unsubscribe(channel)

    def ping(self) -> None:
        """Have the server send something."""
        if self._link is not None:
            self._link.ping()

    async def read_all(self, timeout_s: float) -> None:
        """Return when all that the server had sent has been handled. Raises `RedisError`."""
        if self._link is None:
            raise NotConnected("no link for messages")
        await self._link.call(b"PING", timeout_s=timeout_s)

    # Links

    async def _run(self) -> None:
        delay_s = 0.0
        while True:
            self._changed.clear()
            main = self._connection.link(self._slot)
            if main is None:
                await self._changed.wait()
                continue
            if delay_s:
                await asyncio.sleep(delay_s)
            delay_s = min(max(2 * delay_s, _RETRY_MIN_S), _RETRY_MAX_S)
            try:
                await self._open(main)
            except (RedisError, OSError) as error:
                if self._repeats.is_due(str(error)):
                    emit(_log, "redis.not_subscribed", logging.WARNING, error=str(error))
                if isinstance(error, RedisError):
                    self._connection.note_error(main, error)
                self._lose()
                continue
            if self._main is main and not main.is_lost:
                delay_s = 0.0
                self._repeats.forget()
                self._is_ready = True
                self._on_ready(main)
                while self._is_ready:
                    self._changed.clear()
                    await self._changed.wait()
            else:
                # The link for commands was lost before this one was known to belong to it.
                self._lose()

    async def _open(self, main: Link) -> None:
        """Open the second link and subscribe. Raises `RedisError` or ``OSError``."""
        options = self._connection.options
        link = await open_link(main.server, replace(options, scripts=()))
        link.owner = self
        link.on_message = self._on_message
        link.on_unsubscribed = self._on_unsubscribed
        self._main, self._link = main, link
        refusals: list[RedisError] = []

        def confirmed(reply: Reply) -> None:
            if isinstance(reply, RedisError):
                refusals.append(reply)

        for channel in list(self._channels):
            link.subscribe(channel, confirmed)
        await link.call(b"PING")
        if refusals:
            raise refusals[0]

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        handler = self._channels.get(channel)
        if handler is not None:
            handler(channel, payload)

    def _on_subscribed(self, reply: Reply) -> None:
        if isinstance(reply, RedisError):
            emit(_log, "redis.not_subscribed", logging.WARNING, error=str(reply))
            self._lose()

    def _on_unsubscribed(self, _channel: bytes) -> None:
        """The slot has moved to another server."""
        self._connection.look_again()
        self._lose()

    def link_lost(self, link: Link, reason: str) -> None:
        """The link for messages is lost."""
        if link is self._link:
            emit(
                _log, "redis.disconnected", logging.WARNING, server=str(link.server), reason=reason
            )
            self._lose()

    def link_up(self, _link: Link) -> None:
        """There is a link for commands, which may be another one than before."""
        if self._main is not None and self._connection.link(self._slot) is not self._main:
            self._lose()
        self._changed.set()

    def link_down(self, link: Link) -> None:
        """The link for commands is lost: so is what it had registered."""
        if link is self._main:
            self._lose()

    def _lose(self) -> None:
        link, self._link, self._main = self._link, None, None
        was_ready, self._is_ready = self._is_ready, False
        if link is not None:
            link.close("to be opened again")
        self._changed.set()
        if was_ready:
            self._on_lost()
