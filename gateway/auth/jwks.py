"""Fetches the issuer's published keys (JWKS, RFC 7517) in the background.

The only module of `gateway.auth` that does I/O: the import contract lists the others as pure, and
`gateway.auth.jwt`, which verifies tokens with these keys, never waits for a fetch.

Keys are fetched at the start, then every ``refresh_s`` seconds, and at once when a token names an
unknown key. Successful fetches are at least `AGAIN_S` seconds apart, so that made-up tokens cannot
cause one call to the issuer each. While the issuer is unreachable, the last keys stay in use.
"""

import asyncio
import contextlib
import logging

import aiohttp
import orjson

from gateway.auth.jwt import IssuerKeys
from runtime.events import emit
from runtime.tasks import spawn

MAX_JWKS_BYTES = 1 << 20
FETCH_TIMEOUT_S = 10.0
AGAIN_S = 5.0
"""The least time between two successful fetches."""
RETRY_S = 0.5
"""Delay after the first failed fetch; doubled after each further one."""
MAX_RETRY_S = 30.0

_log = logging.getLogger("gateway.auth")


class FetchError(Exception):
    """The keys could not be fetched; the message is one line."""


class JwksFetcher:
    """Keeps one issuer's keys up to date. ``fetched`` is set after the first success."""

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
        keys.on_unknown_key(self._is_wanted.set)

    def start(self) -> None:
        """Start the background task."""
        self._task = spawn(self._run(), "issuer.jwks")

    async def stop(self) -> None:
        """Stop the background task; the keys stay as they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._is_wanted.clear()
                try:
                    count = self._keys.replace(await self._fetch(session))
                except (FetchError, ValueError) as error:
                    emit(
                        _log,
                        "issuer.keys_unavailable",
                        logging.WARNING,
                        url=self._url,
                        error=str(error),
                    )
                    await asyncio.sleep(self._retry_s)
                    self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)
                    continue
                self._record_success(count)
                await asyncio.sleep(min(self._again_s, self._refresh_s))
                await self._wait_until_wanted()

    def _record_success(self, count: int) -> None:
        if not self.fetched.is_set():
            emit(_log, "issuer.keys_read", url=self._url, keys=count)
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
