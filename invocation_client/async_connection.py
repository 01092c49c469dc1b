"""A connection that tasks of one asyncio loop share. It needs no task of its own."""

import asyncio
from typing import cast

import httpx

from invocation_client.connection import CallStream, ConnectionCore, ConnectionPhase
from invocation_client.failures import CallFailed
from invocation_client.request_head import Fields

_END_S = 1.0
"""How long what was written may take to leave after the end."""


class AsyncConnection(asyncio.Protocol):
    """The loop calls it when bytes have come, and when ``core`` has something to do."""

    def __init__(self, core: ConnectionCore) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[CallStream, AsyncCall] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._started = asyncio.Event()
        self._lost = asyncio.Event()

    # The loop's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no instances of it.
        self._transport = cast("asyncio.Transport", transport)
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the server."""
        self._core.receive(data, self._loop.time())
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end."""
        self._core.lost(str(exc) if exc is not None else "the server closed it")
        self._lost.set()
        self._pump()
        if self._end is not None:
            self._end.cancel()

    def pause_writing(self) -> None:
        """Bodies wait."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Bodies go on."""
        self._is_paused = False
        self._core.changed.update(self._calls)
        self._pump()

    # What calls do

    @property
    def can_open(self) -> bool:
        """Whether one more call may begin."""
        return self._core.can_open

    @property
    def is_closed(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._core.phase is ConnectionPhase.CLOSED

    async def wait_started(self) -> None:
        """Wait for the server's SETTINGS.

        Raises `CallFailed` if the connection failed before.
        """
        await self._started.wait()
        if (refusal := self._core.refusal) is not None:
            raise CallFailed(refusal)

    def open(self, fields: Fields, *, is_whole: bool) -> "AsyncCall | None":
        """Begin a call; None if the connection takes no more."""
        if not self._core.can_open:
            return None
        stream = self._core.open(fields, self._loop.time(), is_whole=is_whole)
        call = self._calls[stream] = AsyncCall(self, stream)
        self._pump()
        return call

    def abort(self) -> None:
        """End the connection without a word."""
        self._core.lost("it was given up")
        if self._transport is not None:
            self._transport.abort()

    async def aclose(self) -> None:
        """Close the connection, and wait until it is."""
        self._core.close()
        self._pump()
        if self._transport is not None:
            await self._lost.wait()

    def is_sendable(self, stream: CallStream) -> bool:
        """Whether some of the body can be sent now, or no more has to be."""
        return (not self._is_paused and self._core.is_sendable(stream)) or (
            stream.failure is not None
        )

    def send(self, stream: CallStream, data: memoryview) -> int:
        """Send a beginning of ``data``; return how many bytes."""
        sent = self._core.send(stream, data)
        self._pump()
        return sent

    def end_request(self, stream: CallStream) -> None:
        """The body is complete."""
        self._core.end(stream, self._loop.time())
        self._pump()

    def take(self, stream: CallStream) -> bytes:
        """Return what of the response has come."""
        data = self._core.take(stream)
        self._pump()
        return data

    def cancel(self, stream: CallStream) -> None:
        """Reset the stream if it is open, and forget the call."""
        self._core.cancel(stream, self._loop.time())
        self._pump()
        self._calls.pop(stream, None)

    # Inside

    def _pump(self) -> None:
        """Send what waits, wake who has news, and set the timer."""
        if self._transport is not None and (data := self._core.data_to_send()):
            self._transport.write(data)
        for stream in self._core.changed:
            if (call := self._calls.get(stream)) is not None:
                call.changed.set()
        self._core.changed.clear()
        if self._core.phase is not ConnectionPhase.STARTING:
            self._started.set()
        self._set_timer()
        if self.is_closed and self._transport is not None and self._end is None:
            self._transport.close()
            # A peer that reads nothing would keep the socket open.
            self._end = self._loop.call_later(_END_S, self._transport.abort)

    def _set_timer(self) -> None:
        due = self._core.next_tick_at
        if self._timer is not None:
            # A timer that comes too early looks again; PINGs move with every byte.
            if due is not None and self._timer.when() <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._core.tick(self._loop.time())
        self._pump()


class AsyncCall:
    """One call on a connection. All waits are for the task that made it."""

    def __init__(self, connection: AsyncConnection, stream: CallStream) -> None:
        self.stream = stream
        self.changed = asyncio.Event()
        self._connection = connection
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes, timeout_s: float | None) -> bool:
        """Send a part of the body; return whether the server takes more.

        Raises `httpx.WriteTimeout` if it takes nothing for ``timeout_s`` seconds, and `CallFailed`.
        """
        rest = memoryview(data)
        while rest:
            await self._wait_sendable(timeout_s)
            rest = rest[self._connection.send(self.stream, rest) :]
            if self.stream.failure is not None:
                raise CallFailed(self.stream.failure, is_sending=True)
        return not self.stream.is_ended

    def end(self) -> None:
        """The body is complete."""
        self._connection.end_request(self.stream)

    async def wait_head(self, timeout_s: float | None) -> None:
        """Wait for the response head.

        Raises `httpx.ReadTimeout` after ``timeout_s`` seconds of silence, and `CallFailed`.
        """
        began = self._loop.time()
        while not self.stream.status:
            if self.stream.failure is not None:
                raise CallFailed(self.stream.failure)
            await self._wait_heard(began, timeout_s)

    async def read(self, timeout_s: float | None) -> bytes:
        """Return the next bytes of the response's body, b"" at its end.

        Raises `httpx.ReadTimeout` after ``timeout_s`` seconds of silence, and `CallFailed`.
        """
        while True:
            began = self._loop.time()
            while not self.stream.is_readable:
                await self._wait_heard(began, timeout_s)
            if data := self._connection.take(self.stream):
                return data
            if self.stream.is_ended:
                return b""
            if self.stream.failure is not None:
                raise CallFailed(self.stream.failure)

    def cancel(self) -> None:
        """End the call: the stream is reset unless it has ended."""
        self._connection.cancel(self.stream)

    async def _wait_sendable(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not self._connection.is_sendable(self.stream):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise httpx.WriteTimeout("the server does not read the request's body") from None

    async def _wait_heard(self, began: float, timeout_s: float | None) -> None:
        """Wait for news; raise if the stream has been silent for too long."""
        due = None if timeout_s is None else max(began, self.stream.heard_at) + timeout_s
        self.changed.clear()
        try:
            async with asyncio.timeout_at(due):
                await self.changed.wait()
        except TimeoutError:
            raise httpx.ReadTimeout("the server sent nothing on this stream in time") from None
