"""The API, called as any other client calls it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import orjson

from gateway.cli.errors import CommandError, Refused, Unreachable, fail

ANSWER_WITHIN_S = 30.0
PAGE = 500
"""Elements of a list that are asked for at once."""

Json = dict[str, Any]
"""An object of the API: its members are those of the OpenAPI document."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the API is, and who asks."""

    url: str
    key: str = field(repr=False)


class ApiClient:
    """Calls one API with one credential, over connections that are kept."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str, **query: str) -> Json:
        """Return what is at ``path``, as `call` has it. Raises `Refused`, `Unreachable`."""
        return await self.call("GET", path, query=query)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """Make one call and return the answer's body, empty when it has none.

        ``path`` is below ``/v2/nvcf/`` unless it begins with ``/``, as the key service's do.
        Raises `Refused`, `Unreachable`.
        """
        data = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        url = self._url + (path if path.startswith("/") else f"/v2/nvcf/{path}")
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, params=query, allow_redirects=False
            ) as response:
                answer, status = await response.read(), response.status
        except TimeoutError:
            raise Unreachable(f"no answer from {self._url} in {ANSWER_WITHIN_S:.0f} s") from None
        except aiohttp.InvalidURL:
            raise CommandError(f"--api-url {self._url} is no URL") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{self._url} cannot be reached: {error}") from None
        if status >= 300:
            _refuse(status, answer)
        if not answer:
            return {}
        found = _parsed(answer)
        if not isinstance(found, dict):
            raise CommandError(f"what answers at {self._url} is not the API")
        return found

    async def versions(self, path: str, limit: int | None, **query: str) -> list[Json]:
        """Return the versions of a list, page by page, at most ``limit``."""
        found: list[Json] = []
        while limit is None or len(found) < limit:
            wanted = PAGE if limit is None else min(PAGE, limit - len(found))
            answer = await self.get(path, **query, limit=str(wanted))
            found += answer["functions"]
            if "cursor" not in answer:
                break
            query["cursor"] = answer["cursor"]
        return found


def run(place: Place, use: Callable[[ApiClient], Awaitable[Answer]]) -> Answer:
    """Run ``use`` with a client; what fails is told in one line and ends the program with 1."""

    async def main() -> Answer:
        async with aiohttp.ClientSession(
            headers={"authorization": f"Bearer {place.key}"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S),
        ) as session:
            return await use(ApiClient(session, place.url))

    logging.getLogger("gateway").addHandler(logging.NullHandler())
    try:
        return asyncio.run(main())
    except CommandError as error:
        raise fail(error) from None


def _refuse(status: int, answer: bytes) -> None:
    """Raise what a problem document says (RFC 9457)."""
    problem = _parsed(answer)
    if not isinstance(problem, dict) or "detail" not in problem:
        raise Refused(status, f"the API answered {status}")
    message = f"{problem['detail']} ({status} {problem.get('title', '')}".rstrip()
    if request_id := problem.get("requestId"):
        message += f", request {request_id}"
    if status == 503:
        raise Unreachable(f"{message})")
    raise Refused(status, f"{message})")


def _parsed(answer: bytes) -> object:
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
