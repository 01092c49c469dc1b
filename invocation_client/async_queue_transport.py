"""`AsyncQueueTransport`: tells the queue position of calls of tasks while they wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any

import httpx

from invocation_client.connection import CLOSED
from invocation_client.queue_updates import (
    CANCEL_S,
    OnUpdate,
    Waiting,
    is_passing,
    is_soon_sent,
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
        self._is_closed = False
        self._cancellings: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Call; return when the response head has come. Raises `httpx.TransportError`."""
        accepted = await self._send(request)
        waiting = waiting_call(request, accepted, monotonic())
        if waiting is None:
            return accepted
        try:
            await accepted.aread()
            await self._follow(waiting)
            response = await self._fetch(waiting)
            if response.is_error and not waiting.has_begun:
                await self._cancel(waiting)  # this may be of a proxy, and the call goes on
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
        """Close the wrapped transport; calls that wait raise `httpx.ReadError`."""
        self._is_closed = True
        try:
            if self._cancellings:
                await asyncio.wait(self._cancellings)
        finally:
            await self._transport.aclose()

    async def _send(self, call: httpx.Request) -> httpx.Response:
        if not is_soon_sent(call):
            return await self._transport.handle_async_request(watched(call))
        # Held by this frame, and then by `_give_up`: `aclose` does not wait for calls.
        sending = asyncio.create_task(  # noqa: TID251
            self._transport.handle_async_request(watched(call))
        )
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await self._finish(self._give_up(call, sending))
            raise

    async def _give_up(self, call: httpx.Request, sending: "asyncio.Task[httpx.Response]") -> None:
        """Cancel a call that is being sent."""
        with suppress(TimeoutError, httpx.TransportError):
            async with asyncio.timeout(CANCEL_S):
                accepted = await sending
            await accepted.aclose()
            waiting = waiting_call(call, accepted, monotonic())
            if waiting is not None:
                await self._send_cancel(waiting)

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for the end of ``work``; without that, `aclose` does.

        A task can be cancelled again while it cancels its call, and in a cancelled scope of anyio
        it can wait for nothing.
        """
        task = asyncio.create_task(work)  # noqa: TID251
        self._cancellings.add(task)
        task.add_done_callback(self._cancellings.discard)
        await asyncio.shield(task)

    async def _follow(self, waiting: Waiting) -> None:
        """Return when there is a response; come again if the events break off."""
        while True:
            try:
                if await self._read_events(waiting):
                    return
                broken: httpx.TransportError | None = None
            except httpx.TransportError as error:
                broken = error
            if not await self._pause(waiting):
                if broken is not None:
                    raise broken
                return

    async def _read_events(self, waiting: Waiting) -> bool:
        """Return whether the response, or the problem in its place, can be fetched."""
        response = await self._transport.handle_async_request(waiting.events())
        try:
            if response.status_code != httpx.codes.OK:
                return not is_passing(response.status_code)
            waiting.begin_events(monotonic())
            async for line in response.aiter_lines():
                update = waiting.read(line, monotonic())
                if update is not None:
                    self._on_update(update)
                if waiting.has_begun:
                    return True
        finally:
            await response.aclose()
        return False

    async def _fetch(self, waiting: Waiting) -> httpx.Response:
        while True:
            try:
                return await self._transport.handle_async_request(waiting.response())
            except httpx.ReadTimeout:
                raise
            except httpx.TransportError:
                if not await self._pause(waiting):
                    raise

    async def _pause(self, waiting: Waiting) -> bool:
        """Wait before something is asked for again; return whether it may be."""
        if self._is_closed:
            raise CLOSED.exception()
        pause_s = waiting.broken(monotonic())
        if pause_s is None:
            return False
        await asyncio.sleep(pause_s)
        return True

    async def _cancel(self, waiting: Waiting) -> None:
        await self._finish(self._send_cancel(waiting))

    async def _send_cancel(self, waiting: Waiting) -> None:
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
