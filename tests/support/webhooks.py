"""A receiver of webhooks: a real HTTP server that checks signatures as receivers do."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.waiting import Signal, until


class ReceivedWebhook(NamedTuple):
    """One request to the receiver."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


class WebhookReceiver:
    """Keeps what it gets; ``answers`` are status and headers of the next responses, then 204.

    While ``is_silent``, it does not respond.
    """

    def __init__(self) -> None:
        self.received: list[ReceivedWebhook] = []
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.is_silent = False
        self.url = ""
        self._changed = Signal()
        self._closing = asyncio.Event()

    async def wait(self, count: int) -> ReceivedWebhook:
        """Wait until so many requests have come; return the last one of these."""
        await until(lambda: len(self.received) >= count, changed=self._changed)
        return self.received[count - 1]

    def speak(self) -> None:
        """Respond to what was not responded to."""
        self.is_silent = False
        self._closing.set()

    async def serve(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(ReceivedWebhook(request.path_qs, headers, await request.read()))
        self._changed.notify()
        if self.is_silent:
            await self._closing.wait()
        status, more = self.answers.popleft() if self.answers else (204, {})
        return web.Response(status=status, headers=more)


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    """Run a receiver on a free port of 127.0.0.1."""
    receiver = WebhookReceiver()
    app = web.Application()
    app.router.add_route("*", "/{below:.*}", receiver.serve)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    receiver.url = f"http://127.0.0.1:{server.port}/hook"
    try:
        yield receiver
    finally:
        receiver.speak()
        await server.close()
