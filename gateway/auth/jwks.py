"""Keeps an issuer's keys as it publishes them (RFC 7517), without anybody waiting for it.

Fetched at the start, then every ``refresh_s``, and at once when a token names a key that is not
known, but not more often than every `AGAIN_S`: whoever sends made-up tokens must not make us call
the issuer for each. While it cannot be reached the keys stay as they are.
"""

import asyncio
import contextlib
import logging

import aiohttp
import orjson

from gateway.auth.jwt import IssuerKeys
from runtime.tasks import spawn

MAX_JWKS_BYTES = 1 << 20
ANSWER_WITHIN_S = 10.0
AGAIN_S = 5.0
"""The least time between two fetches that succeeded."""
RETRY_S = 0.5
MAX_RETRY_S = 30.0

_log = logging.getLogger("gateway.auth")


class FetchError(Exception):
    """The keys could not be fetched; the text says why, in one line."""


class JwksFetcher:
    """One issuer's. ``fetched`` is set after the first success."""

    def __init__(self, keys: IssuerKeys, url: str, refresh_s: float, again_s: float = AGAIN_S):
        """``url`` is http:// or https://; redirects are not followed."""
        self._keys = keys
        self._url = url
        self._refresh_s = refresh_s
        self._again_s = again_s
        self._retry_s = RETRY_S
        self._is_wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.fetched = asyncio.Event()
        keys.on_missed(self._is_wanted.set)

    def start(self) -> None:
        """Begin to fetch."""
        self._task = spawn(self._run(), "issuer.jwks")

    async def stop(self) -> None:
        """Stop; the keys stay as they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._is_wanted.clear()
                try:
                    count = self._keys.replace(await self._fetch(session))
                except (FetchError, ValueError) as error:
                    fields = {"url": self._url, "error": str(error)}
                    _log.warning("issuer.keys_unavailable", extra={"fields": fields})
                    await asyncio.sleep(self._retry_s)
                    self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)
                    continue
                self._note(count)
                await asyncio.sleep(min(self._again_s, self._refresh_s))
                await self._wait_until_wanted()

    def _note(self, count: int) -> None:
        if not self.fetched.is_set():
            _log.info("issuer.keys_read", extra={"fields": {"url": self._url, "keys": count}})
        self._retry_s = RETRY_S
        self.fetched.set()

    async def _wait_until_wanted(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._refresh_s - self._again_s, 0)):
                await self._is_wanted.wait()

    async def _fetch(self, session: aiohttp.ClientSession) -> object:
        try:
            async with session.get(self._url, allow_redirects=False) as response:
                if response.status != 200:
                    raise FetchError(f"status {response.status}")
                data = await response.content.read(MAX_JWKS_BYTES + 1)
                while len(data) <= MAX_JWKS_BYTES and (more := await response.content.readany()):
                    data += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise FetchError(str(error) or type(error).__name__) from error
        if len(data) > MAX_JWKS_BYTES:
            raise FetchError(f"more than {MAX_JWKS_BYTES} bytes")
        document: object = orjson.loads(data)
        return document
