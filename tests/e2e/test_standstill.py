"""A gateway process that stood still reads what has come before it applies a limit on silence."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.stack import Gateway, Stack, running_at_inference, start
from tests.support.waiting import PATIENCE_S, until

LIMIT_S = 1.0
PAUSE_S = 3.5
"""Longer than any limit, also than the poll window with its margin."""


class KeptConnection:
    """A client's connection, written to without waiting for the gateway."""

    def __init__(
        self, gateway: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._gateway = gateway
        self._reader = reader
        self.writer = writer

    def send_head(self, method: str, target: str, *more: str) -> None:
        headers = [f"{name}: {value}" for name, value in self._gateway.headers.items()]
        lines = [f"{method} {target} HTTP/1.1", "host: h", *headers, *more, "", ""]
        self.writer.write("\r\n".join(lines).encode())

    async def status(self) -> int:
        """Read a response of known length; return its status."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await self._reader.readexactly(int(length))
        return int(head.split()[1])


@asynccontextmanager
async def kept_connection(gateway: Gateway) -> AsyncIterator[KeptConnection]:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield KeptConnection(gateway, reader, writer)
    finally:
        writer.close()


async def test_what_came_while_the_gateway_stood_still_came_in_time(stack: Stack) -> None:
    gateway = stack.gateway(EDGE__IDLE_TIMEOUT_S=str(LIMIT_S), EDGE__BODY_STALL_S=str(LIMIT_S))
    stack.agent()
    async with (
        kept_connection(gateway) as idle,
        kept_connection(gateway) as uploading,
        gateway.client() as client,
    ):
        window = {"nvcf-poll-seconds": "1"}
        quick = start(client.get("/slow?seconds=0.5", headers=window))
        endless = start(client.get("/slow?seconds=60", headers=window))
        await running_at_inference(stack, 2)
        uploading.send_head("POST", "/echo", "content-length: 10")
        uploading.writer.write(b"12345")
        idle.send_head("GET", "/health")
        assert await idle.status() == 200
        gateway.program.pause()
        paused_at = time.monotonic()
        idle.send_head("GET", "/health")
        uploading.writer.write(b"67890")
        await until(lambda: time.monotonic() - paused_at > PAUSE_S, what="the end of the pause")
        gateway.program.send(signal.SIGCONT)
        assert await idle.status() == 200
        assert await uploading.status() == 200
        # Its response head had come within the window.
        assert (await quick).status_code == 200
        # A window that has truly passed has passed.
        assert (await endless).status_code == 504
