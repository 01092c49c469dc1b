"""The connection of the store to Redis or Valkey, kept for as long as the process lives.

`redis-py` carries it. When it is lost, it is opened anew at whatever is the master then. So it is
when the Sentinels name another master: the old one may go on taking writes, which are lost, for ten
seconds. No command is repeated: a write whose response did not arrive may have happened.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import StoreUnavailable
from gateway.store.options import RedisStoreOptions
from gateway.store.redis.masters import (
    ERRORS,
    StoreMaster,
    ask_sentinels,
    call,
    check_urls,
    find_master,
)
from gateway.store.redis.scripts import StoreScript
from runtime.events import emit
from runtime.tasks import spawn

RECONNECT_WAIT_S = 0.2
"""Pause between attempts. Short: a key that was revoked while Redis was away must stop soon."""
SENTINELS_ASKED_S = 0.5
"""Pause between two questions to the Sentinels."""
_AT_ONCE = 16
"""Commands that are sent at a time, each on a connection of its own; further ones wait."""

_LOST = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, RedisClusterException, OSError)
"""Errors after which another server may be the master, or none."""
_DEMOTED = "UNBLOCKED"
"""What a command that waits gets when its server becomes a replica."""

_log = logging.getLogger("gateway.store")


class UnknownScript(StoreUnavailable):
    """The server does not know a script by its digest."""


class RedisStoreConnection:
    """Opens, keeps and closes the connection, and runs commands and scripts."""

    def __init__(self, options: RedisStoreOptions) -> None:
        self._options = options
        self._master: StoreMaster | None = None
        self._up = asyncio.Event()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []
        self._last_error = ""

    async def open(self, timeout_s: float | None = None) -> None:
        """Connect, and keep trying; raise `StoreUnavailable` after ``timeout_s`` seconds.

        Raises it at once for a malformed URL.
        """
        try:
            check_urls(self._options)
        except ValueError as error:
            raise StoreUnavailable(cause=str(error)) from error
        try:
            async with asyncio.timeout(timeout_s):
                await self._connect()
        except TimeoutError:
            raise StoreUnavailable(cause=self._last_error or "no response from Redis") from None
        if self._options.sentinel_master:
            self._tasks.append(spawn(self._heed_sentinels(), "store.sentinels"))

    async def close(self) -> None:
        """Close for good. There are no buffered writes to lose."""
        self._up.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        master, self._master = self._master, None
        if master is not None:
            await master.client.aclose()

    async def wait_connected(self) -> None:
        """Wait without limit until there is a connection."""
        await self._up.wait()

    async def call(self, *command: str | bytes | float) -> Any:
        """Return the response to one command. Raises `StoreUnavailable`."""
        async with self._turns:
            return await self.call_at_once(*command)

    async def call_at_once(self, *command: str | bytes | float) -> Any:
        """As `call`, for a command that blocks: it takes no turn from the others."""
        master = self._master
        if master is None or not self._up.is_set():
            raise StoreUnavailable(cause=self._last_error or "not connected to Redis")
        try:
            with self._translate_errors(master):
                return await call(master.client, *command)
        finally:
            if master is not self._master or not self._up.is_set():
                # It was closed during the call, which may have opened a connection since.
                await master.client.aclose()

    async def run(
        self, script: StoreScript, keys: tuple[str, ...], *arguments: str | bytes | float
    ) -> int:
        """Return what a script returns. Raises `StoreUnavailable`."""
        try:
            result = await self.call("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except UnknownScript:
            # The server has been started since, has another master, or was told to forget it.
            result = await self.call("EVAL", script.source, len(keys), *keys, *arguments)
        return int(result)

    async def _connect(self) -> None:
        """Try all addresses again and again."""
        while True:
            try:
                self._master = await find_master(self._options)
            except ERRORS as error:
                self._note(error)
            else:
                self._last_error = ""
                self._up.set()
                return
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def _reopen(self, lost: StoreMaster) -> None:
        await lost.client.aclose()
        await self._connect()
        emit(_log, "store.reconnected")

    async def _heed_sentinels(self) -> None:
        """Leave a master that is none any more, as far as the Sentinels know."""
        while True:
            await asyncio.sleep(SENTINELS_ASKED_S)
            try:
                named = await ask_sentinels(self._options)
            except ERRORS as error:
                emit(_log, "store.sentinels_away", logging.DEBUG, error=_text_of(error))
                continue
            if self._master is not None and named != self._master.server:
                self._lose(self._master, f"{named} is the master now")

    @contextmanager
    def _translate_errors(self, master: StoreMaster) -> Iterator[None]:
        """Raise `StoreUnavailable` in place of `redis-py`'s errors; connect anew where that helps.

        The cause names servers and keys: it is for logs, not for callers.
        """
        try:
            yield
        except NoScriptError as error:
            raise UnknownScript(cause=str(error)) from error
        except ERRORS as error:
            text = _text_of(error)
            if isinstance(error, _LOST) or text.startswith(_DEMOTED):
                self._lose(master, text)
            raise StoreUnavailable(cause=text) from error

    def _lose(self, master: StoreMaster, text: str) -> None:
        if master is self._master and self._up.is_set():
            self._up.clear()
            self._last_error = text
            emit(_log, "store.disconnected", logging.WARNING, error=text)
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(spawn(self._reopen(master), "store.reopen"))

    def _note(self, error: Exception) -> None:
        text = _text_of(error)
        if text != self._last_error:
            self._last_error = text
            emit(_log, "store.redis_error", logging.WARNING, error=text)


def _text_of(error: Exception) -> str:
    known = error.strerror if isinstance(error, OSError) else None
    return known or str(error) or type(error).__name__
