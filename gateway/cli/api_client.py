"""A client of the API, which calls it like any other client."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import orjson

from gateway.cli.errors import ApiError, CommandError, Unreachable, fail, usage

TIMEOUT_S = 30.0
"""Timeout of one call."""
PAGE = 500
"""Number of list elements per call."""

Json = dict[str, Any]
"""An object of the API, with the members that the OpenAPI document describes."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ApiTarget:
    """The URL of the API, and the credential to call it with."""

    url: str
    key: str = field(repr=False)


class ApiClient:
    """Calls one API with one credential, over keep-alive connections."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str, **query: str) -> Json:
        """GET ``path`` as `call` does. Raises `ApiError`, `Unreachable`."""
        return await self.call("GET", path, query=query)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """Make one call and return the JSON object of the response, empty if it has no body.

        ``path`` is relative to ``/v2/nvcf/`` unless it begins with ``/``, as for the key service.
        Raises `ApiError`, `Unreachable`.
        """
        parsed = await self._call(method, path, body, query)
        if not isinstance(parsed, dict):
            raise CommandError(f"the server at {self._url} is not the API")
        return parsed

    async def get_list(self, path: str) -> list[Json]:
        """GET ``path`` as `call` does; the response is a JSON array."""
        parsed = await self._call("GET", path)
        if not isinstance(parsed, list):
            raise CommandError(f"the server at {self._url} is not the API")
        return parsed

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
    ) -> object:
        data = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        url = self._url + (path if path.startswith("/") else f"/v2/nvcf/{path}")
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, params=query, allow_redirects=False
            ) as response:
                content, status = await response.read(), response.status
        except TimeoutError:
            raise Unreachable(f"no response from {self._url} in {TIMEOUT_S:.0f} s") from None
        except aiohttp.InvalidURL:
            raise usage(f"{self._url} is not a URL.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{self._url} cannot be reached: {error}") from None
        if status >= 300:
            raise error_of(status, content)
        return _parse(content) if content else {}

    async def versions(self, path: str, limit: int | None, **query: str) -> list[Json]:
        """Return the function versions of a paged list, at most ``limit``; `None` means all."""
        found: list[Json] = []
        while limit is None or len(found) < limit:
            wanted = PAGE if limit is None else min(PAGE, limit - len(found))
            page = await self.get(path, **query, limit=str(wanted))
            found += page["functions"]
            if "cursor" not in page:
                break
            query["cursor"] = page["cursor"]
        return found


def run(target: ApiTarget, use: Callable[[ApiClient], Awaitable[Result]]) -> Result:
    """Run ``use`` with a client. A failure is printed and ends the program with exit code 1."""

    async def main() -> Result:
        async with aiohttp.ClientSession(
            headers={"authorization": f"Bearer {target.key}"},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        ) as session:
            return await use(ApiClient(session, target.url))

    logging.getLogger("gateway").addHandler(logging.NullHandler())
    try:
        return asyncio.run(main())
    except CommandError as error:
        raise fail(error) from None


def error_of(status: int, content: bytes) -> CommandError:
    """Return the error that a problem document describes (RFC 9457)."""
    problem = _parse(content)
    if not isinstance(problem, dict) or "detail" not in problem:
        return ApiError(status, f"the API responded with {status}")
    message = f"{problem['detail']} ({status} {problem.get('title', '')}".rstrip()
    if request_id := problem.get("requestId"):
        message += f", request {request_id}"
    message += ")"
    return Unreachable(message) if status == 503 else ApiError(status, message)


def _parse(content: bytes) -> object:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
