"""The same calls from threads and from tasks, so that one test covers both transports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx

from invocation_client import AsyncHttp2Transport, Http2Transport
from tests.support.waiting import PATIENCE_S

THREADS = 24


class Streamed(Protocol):
    """A response whose body is read part by part."""

    response: httpx.Response

    async def next(self) -> bytes | None:
        """Return the next part, None at the end."""

    async def close(self) -> None:
        """Close the response."""


class Caller(Protocol):
    """A client with one transport."""

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Call and read the response."""

    async def stream(self, method: str, url: str, **options: Any) -> Streamed:
        """Call and return when the head has come."""

    async def close_transport(self) -> None:
        """Close the transport below the client."""

    async def close(self) -> None:
        """Close the client."""


class TaskCaller:
    def __init__(self, **options: Any) -> None:
        self._transport = AsyncHttp2Transport(**options)
        self.client = httpx.AsyncClient(transport=self._transport, timeout=PATIENCE_S)

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return await self.client.request(method, url, **options)

    async def stream(self, method: str, url: str, **options: Any) -> "TaskStreamed":
        request = self.client.build_request(method, url, **options)
        return TaskStreamed(await self.client.send(request, stream=True))

    async def close_transport(self) -> None:
        await self._transport.aclose()

    async def close(self) -> None:
        await self.client.aclose()


class TaskStreamed:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._parts = response.aiter_raw()

    async def next(self) -> bytes | None:
        return await anext(self._parts, None)

    async def close(self) -> None:
        await self.response.aclose()


class ThreadCaller:
    def __init__(self, **options: Any) -> None:
        self._transport = Http2Transport(**options)
        self.client = httpx.Client(transport=self._transport, timeout=PATIENCE_S)
        self._threads = ThreadPoolExecutor(THREADS)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        response: httpx.Response = await self.run(
            lambda: self.client.request(method, url, **options)
        )
        return response

    async def stream(self, method: str, url: str, **options: Any) -> "ThreadStreamed":
        request = self.client.build_request(method, url, **options)
        response = await self.run(lambda: self.client.send(request, stream=True))
        return ThreadStreamed(response, self)

    async def close_transport(self) -> None:
        await self.run(self._transport.close)

    async def close(self) -> None:
        await self.run(self.client.close)
        self._threads.shutdown()


class ThreadStreamed:
    def __init__(self, response: httpx.Response, caller: ThreadCaller) -> None:
        self.response = response
        self._parts = response.iter_raw()
        self._caller = caller

    async def next(self) -> bytes | None:
        data: bytes | None = await self._caller.run(next, self._parts, None)
        return data

    async def close(self) -> None:
        await self._caller.run(self.response.close)


CALLERS: dict[str, type[TaskCaller | ThreadCaller]] = {"tasks": TaskCaller, "threads": ThreadCaller}


class Callers:
    """Makes callers of one kind."""

    def __init__(self, kind: type[TaskCaller | ThreadCaller]) -> None:
        self._kind = kind

    @asynccontextmanager
    async def __call__(self, **options: Any) -> AsyncIterator[Caller]:
        caller = self._kind(**options)
        try:
            yield caller
        finally:
            await caller.close()
