"""The listener for the platform: live, ready, metrics. One request per connection."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

from runtime.metrics import CONTENT_TYPE, Registry
from runtime.settings import Address

_MAX_HEAD_BYTES = 8_192
_HEAD_S = 5.0

Answer = tuple[int, str, bytes]


class Admin:
    """Answers ``/health/live``, ``/health/ready`` (also under ``/v1``, as NVCF) and ``/metrics``.

    ``failures`` tells what keeps the agent from taking work, by component; empty when ready.
    """

    def __init__(self, registry: Registry, failures: Callable[[], dict[str, str]]) -> None:
        self._registry = registry
        self._failures = failures
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self, address: Address) -> None:
        """Begin. Raises OSError when the address cannot be had."""
        if address.is_unix:
            self._server = await asyncio.start_unix_server(
                self._serve, address.path, limit=_MAX_HEAD_BYTES
            )
            return
        self._server = await asyncio.start_server(
            self._serve, address.host, address.port, limit=_MAX_HEAD_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End."""
        if self._server is not None:
            self._server.close()

    def answer(self, method: str, path: str) -> Answer:
        """Return status, content type and body."""
        if method not in {"GET", "HEAD"}:
            return 405, "text/plain", b"GET only\n"
        match path.partition("?")[0].removeprefix("/v1"):
            case "/health/live":
                return 200, "text/plain", b"OK\n"
            case "/health/ready":
                failures = self._failures()
                document: dict[str, object] = {"status": "Unavailable" if failures else "OK"}
                if failures:
                    document["failures"] = failures
                return 503 if failures else 200, "application/json", json.dumps(document).encode()
            case "/metrics":
                return 200, CONTENT_TYPE.decode(), self._registry.exposition()
            case _:
                return 404, "text/plain", b"no such page\n"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
            if len(words) == 3:
                status, content_type, body = self.answer(words[0], words[1])
            else:
                status, content_type, body = 400, "text/plain", b"malformed request\n"
            writer.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
            )
            if words[0] != "HEAD":
                writer.write(body)
            async with asyncio.timeout(_HEAD_S):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
