"""What a worker gets from and puts into an object store: input assets, large responses.

Bodies go between socket and file in blocks, so that none is in memory as a whole, and at most
`AT_ONCE` at a time. What the store or the network refuses for the moment is tried again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from io import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from runtime.events import emit
from wire.decoded_envelope import Envelope, InputAssetReference
from wire.headers import NVCF_CHANNEL_CALL, NVCF_REQID
from wire.ids import parse_uuid
from wire.worker_api import LARGE_RESPONSE_PATH
from worker_agent.compat.folders import FileThreads

if TYPE_CHECKING:
    import aiohttp

AT_ONCE = 8
ATTEMPTS = 4
FIRST_PAUSE_S = 0.1
"""Before the second attempt; it doubles each time."""
BLOCK_BYTES = 256 * 1024
_CONNECT_S = 10.0
_SILENT_S = 60.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of what may be over at the next attempt."""
_OK = 200
_UNAUTHORIZED = 401

_log = logging.getLogger("worker.compat")


def _new_file(path: Path) -> BinaryIO:
    """Open a file that was not there: the function may have put a link in its place."""
    path.unlink(missing_ok=True)
    return path.open("xb")


class TransferError(Exception):
    """A body cannot be had, or not be stored. The text has no URL: it may hold a signature."""


class TokenUsed(Exception):
    """The client does not wait any more, and the gateway process takes its token no longer."""


class ResponseUrls(NamedTuple):
    """Where a large response is put, and from where its client gets it."""

    upload: str
    download: str


class ObjectUrls(Protocol):
    """NVIDIA's control plane, which answers in place of gateway processes.

    Both methods raise `TransferError`. ``data`` is the encoded envelope, empty for a call of a
    channel.
    """

    async def response_urls(self, envelope: Envelope, data: bytes) -> ResponseUrls: ...

    async def assets(self, envelope: Envelope, data: bytes) -> tuple[InputAssetReference, ...]:
        """Return the input assets of a request, with new URLs if it is old."""


class Transfers:
    """The agent's side of object stores. ``max_bytes`` bounds the assets of one request."""

    def __init__(self, threads: FileThreads, max_bytes: int) -> None:
        self._threads = threads
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None
        self._room = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(self, assets: Sequence[InputAssetReference], folder: Path) -> int:
        """Fetch all assets into ``folder``, each named as its id; return their bytes.

        Raises `TransferError`, and `OSError` for the disk.
        """
        left = [self._max_bytes]
        try:
            async with asyncio.TaskGroup() as group:
                for asset in assets:
                    group.create_task(self._fetch_one(asset, folder, left))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return self._max_bytes - left[0]

    async def put(self, url: str, file: BinaryIO, content_type: str) -> None:
        """Store the whole of an open file. Raises `TransferError`, and `OSError` for the disk."""
        async with self._room:
            await self._repeat(lambda: self._put_once(url, file, content_type))

    async def response_urls(self, envelope: Envelope) -> ResponseUrls:
        """Ask a gateway process where to put a large response, and from where clients get it.

        Raises `TransferError` and `TokenUsed`.
        """
        url = envelope.target_uri.decode().rstrip("/") + LARGE_RESPONSE_PATH.decode()
        headers = {
            "Authorization": f"Bearer {envelope.response_token}",
            NVCF_REQID.decode(): envelope.request_id,
        }
        if envelope.channel_call:
            headers[NVCF_CHANNEL_CALL.decode()] = str(envelope.channel_call)
        found: list[ResponseUrls] = []

        async def ask() -> int:
            async with self._client().post(url, headers=headers) as response:
                if response.status == _OK:
                    document = await response.json()
                    urls = str(document["uploadUrl"]), str(document["downloadUrl"])
                    found.append(ResponseUrls(*urls))
                elif response.status == _UNAUTHORIZED:
                    raise TokenUsed
                return response.status

        try:
            await self._repeat(ask)
        except (KeyError, TypeError, ValueError) as error:
            raise TransferError("the gateway's response is not one") from error
        return found[0]

    async def _fetch_one(self, asset: InputAssetReference, folder: Path, left: list[int]) -> None:
        name = parse_uuid(asset.asset_id.encode())
        if name is None:
            raise TransferError("the id of an asset is not a UUID")
        async with self._room:
            await self._repeat(lambda: self._fetch_once(asset.url, folder / name, left))

    async def _fetch_once(self, url: str, path: Path, left: list[int]) -> int:
        taken = 0
        async with self._client().get(url) as response:
            if response.status != _OK:
                return response.status
            file = await self._threads.run(_new_file, path)
            try:
                async for block in response.content.iter_chunked(BLOCK_BYTES):
                    left[0] -= len(block)
                    taken += len(block)
                    if left[0] < 0:
                        raise TransferError(
                            f"the assets have more than {self._max_bytes:,} bytes together"
                        )
                    await self._threads.run(file.write, block)
                taken = 0
            finally:
                left[0] += taken
                await self._threads.run(file.close)
        return _OK

    async def _put_once(self, url: str, file: BinaryIO, content_type: str) -> int:
        size = await self._threads.run(file.seek, 0, SEEK_END)
        await self._threads.run(file.seek, 0)

        async def blocks() -> AsyncIterator[bytes]:
            while block := await self._threads.run(file.read, BLOCK_BYTES):
                yield block

        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        async with self._client().put(url, data=blocks(), headers=headers) as response:
            return _OK if response.status in (_OK, 201, 204) else response.status

    async def _repeat(self, attempt: Callable[[], Awaitable[int]]) -> None:
        """Attempt it until its status is 200. Raises `TransferError`."""
        # Imported here: few agents need it, and it takes memory.
        import aiohttp  # noqa: PLC0415

        pause_s, reason = FIRST_PAUSE_S, ""
        for number in range(1, ATTEMPTS + 1):
            try:
                status = await attempt()
                if status == _OK:
                    return
                reason = f"status {status}"
                if status not in _PASSING:
                    break
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = type(error).__name__
            if number < ATTEMPTS:
                emit(_log, "transfer.repeated", reason=reason, attempt=number)
                await asyncio.sleep(pause_s)
                pause_s *= 2
        raise TransferError(reason)

    def _client(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp  # noqa: PLC0415

            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_S, sock_read=_SILENT_S
                ),
                auto_decompress=False,
                trust_env=True,
            )
        return self._session
