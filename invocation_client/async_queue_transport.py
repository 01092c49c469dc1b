"""`AsyncQueueTransport`: tells the queue position of calls of tasks while they wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import httpx

from invocation_client.queue_updates import (
    MAX_BREAKS,
    OnUpdate,
    Waiting,
    pause_s,
    waiting_call,
    watched,
)


class AsyncQueueTransport(httpx.AsyncBaseTransport):
    """Calls ``on_update`` with a `QueueUpdate` when a call's position in the queue changes.

    It wraps ``transport``, which sends the requests. The response of each call is as without it,
    whatever becomes of the connection while the call waits. A call that is given up is cancelled.
    ``on_update`` runs in the task of its call.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, on_update: OnUpdate) -> None:
        self._transport = transport
        self._on_update = on_update

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Call; return when the response head has come. Raises `httpx.TransportError`."""
        accepted = await self._transport.handle_async_request(watched(request))
        waiting = waiting_call(request, accepted)
        if waiting is None:
            return accepted
        try:
            await accepted.aread()
            await self._follow(waiting)
            response = await self._transport.handle_async_request(waiting.response())
        except BaseException:
            await self._cancel(waiting)
            raise
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_CancelledAsyncStream(response, lambda: self._cancel(waiting)),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._transport.aclose()

    async def _follow(self, waiting: Waiting) -> None:
        """Return when the response has begun; come again if the events break off."""
        breaks = 0
        while True:
            try:
                response = await self._transport.handle_async_request(waiting.events())
                try:
                    if not response.is_success or response.status_code == httpx.codes.NO_CONTENT:
                        # There is a response, or a problem, in its place.
                        return
                    async for line in response.aiter_lines():
                        update, has_begun = waiting.reader.read(line)
                        if update is not None:
                            breaks = 0
                            self._on_update(update)
                        if has_begun:
                            return
                finally:
                    await response.aclose()
            except httpx.TransportError:
                if breaks >= MAX_BREAKS:
                    raise
            breaks += 1
            if breaks > MAX_BREAKS:
                raise httpx.RemoteProtocolError("the events of the call break off")
            await asyncio.sleep(pause_s(breaks))

    async def _cancel(self, waiting: Waiting) -> None:
        with suppress(httpx.TransportError):
            response = await self._transport.handle_async_request(waiting.cancel())
            await response.aclose()


class _CancelledAsyncStream(httpx.AsyncByteStream):
    """The body of a response; its call is cancelled if the body is closed before its end."""

    def __init__(self, response: httpx.Response, cancel: Callable[[], Awaitable[None]]) -> None:
        self._response = response
        self._cancel = cancel
        self._is_complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_raw():
            yield part
        self._is_complete = True

    async def aclose(self) -> None:
        await self._response.aclose()
        if not self._is_complete:
            self._is_complete = True
            await self._cancel()
