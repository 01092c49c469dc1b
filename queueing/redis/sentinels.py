"""Listens to a Sentinel: a master whose machine is gone, or that hangs, ends no connection."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from queueing.redis.errors import RedisError
from queueing.redis.link import Link, LinkOwner, RedisOptions, open_link
from queueing.redis.topology import bare, sentinel_login
from runtime.events import emit
from runtime.tasks import spawn

_CHANNEL = b"+switch-master"
_RETRY_S = 1.0

_log = logging.getLogger("queueing.redis.sentinels")


class SentinelWatch(LinkOwner):
    """Calls ``on_switch`` with host and port of each new master that a Sentinel tells of."""

    def __init__(self, options: RedisOptions, on_switch: Callable[[str, int], None]) -> None:
        self._options = options
        self._name = options.sentinel_master.encode()
        self._on_switch = on_switch
        self._lost = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._runner = spawn(self._run(), "redis-sentinels")

    async def close(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner

    async def _run(self) -> None:
        while True:
            servers = list(self._options.servers)
            random.shuffle(servers)
            for server in servers:
                try:
                    login = sentinel_login(self._options)
                    link = await open_link(server, bare(self._options), login=login)
                except (RedisError, OSError) as error:
                    emit(_log, "redis.sentinel_away", server=str(server), error=str(error))
                    continue
                await self._listen(link)
            await asyncio.sleep(_RETRY_S)

    async def _listen(self, link: Link) -> None:
        """Return when the link is lost."""
        self._lost.clear()
        link.owner = self
        link.on_message = self._on_message
        try:
            if link.subscribe(_CHANNEL, lambda _reply: None, kind=b"subscribe"):
                await self._lost.wait()
        finally:
            link.close("closed by the client")

    def link_lost(self, link: Link, reason: str) -> None:  # noqa: ARG002 - of the protocol
        """Listen to another Sentinel."""
        self._lost.set()

    def _on_message(self, _channel: bytes, payload: bytes) -> None:
        """Read ``<name> <old host> <old port> <host> <port>`` (redis.io, "Sentinel Pub/Sub")."""
        words = payload.split(b" ")
        if len(words) == 5 and words[0] == self._name and words[4].isdigit():
            self._on_switch(words[3].decode(), int(words[4]))
