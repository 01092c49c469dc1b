"""Responses of detached calls in the object store, where every gateway process finds them.

An object is one line of JSON, `_schema` 1, and then the body. The line has what callers see of the
call (`gateway.requests.views`), whose it is, and the head of the response.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson

from gateway.errors import StoreUnavailable, problem_for
from gateway.invocation.headers import with_platform_headers
from gateway.objects.interface import UNAVAILABLE, ObjectNotFound, ObjectReader, ObjectStore
from gateway.requests.detached import DetachedCall
from gateway.requests.recording import Recording
from gateway.requests.views import time_text, view_of
from http1.stream import Headers
from wire.problem import instance_of

PREFIX = "responses/"
_OCTETS = "application/octet-stream"
_SCHEMA = 1
_MAX_LINE_BYTES = 1_048_576


class Shown(NamedTuple):
    """What is known of a stored response before its body. ``expires_at`` is in Unix seconds.

    ``extra`` is what the kind of the call has added (`DetachedCall.extra`).
    """

    account: str
    owner: str
    function_id: str
    version_id: str
    kind: str
    method: bytes
    status: int
    headers: Headers
    trailers: Headers
    expires_at: float
    view: dict[str, object]
    extra: Mapping[str, object]


class StoredResponse:
    """An opened stored response. A context manager, which yields the body once.

    ``size`` is the length of the body in bytes.
    """

    def __init__(
        self,
        reader: ObjectReader,
        shown: Shown,
        size: int,
        begun: bytes,
        pieces: AsyncIterator[bytes],
    ) -> None:
        """``begun`` is what was read of the body; ``pieces`` bring the rest."""
        self._reader = reader
        self._begun = begun
        self._pieces = pieces
        self.shown = shown
        self.size = size

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._reader.__aexit__(kind, error, trace)

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces. Raises `StoreUnavailable`."""
        begun, self._begun = self._begun, b""
        if begun:
            yield begun
        async for piece in self._pieces:
            yield piece


class StoredResponses:
    """Writes, finds and deletes stored responses."""

    def __init__(self, store: ObjectStore, retention_s: float) -> None:
        self._store = store
        self.retention_s = retention_s

    async def put(self, call: DetachedCall) -> None:
        """Store what became of ``call``, which is over. Raises `StoreUnavailable`."""
        key = PREFIX + call.request_id
        recording = call.recording
        status, headers, body = _response_of(call)
        line = self._line(call, status, headers)
        if body is not None:
            await self._store.put_bytes(key, line + body, content_type=_OCTETS)
            return
        await self._store.put(
            key,
            _pieces(line, recording),
            size=len(line) + recording.size,
            content_type=_OCTETS,
        )

    async def find(self, request_id: str) -> StoredResponse | None:
        """Open a stored response, `None` if there is none. Raises `StoreUnavailable`."""
        try:
            reader = await self._store.get(PREFIX + request_id)
        except ObjectNotFound:
            return None
        try:
            pieces = aiter(reader)
            data = b""
            while b"\n" not in data and len(data) < _MAX_LINE_BYTES:
                data += await anext(pieces)
            line, _, begun = data.partition(b"\n")
            size = reader.info.size - len(line) - 1
            return StoredResponse(reader, _shown(orjson.loads(line)), size, begun, pieces)
        except (ValueError, KeyError, TypeError, StopAsyncIteration) as error:
            await reader.__aexit__(None, None, None)
            raise StoreUnavailable(UNAVAILABLE, cause="not a stored response") from error

    async def delete(self, request_id: str) -> None:
        """Delete a stored response, if there is one. Raises `StoreUnavailable`."""
        await self._store.delete(PREFIX + request_id)

    def _line(self, call: DetachedCall, status: int, headers: Headers) -> bytes:
        ending = call.ending
        finished_at = call.created_at if ending is None else ending.finished_at
        expires_at = finished_at + self.retention_s
        document = {
            "schema": _SCHEMA,
            "account": call.account,
            "owner": call.owner,
            "functionId": call.function_id,
            "functionVersionId": call.version_id,
            "kind": call.kind,
            "method": call.method.decode("latin-1"),
            "status": status,
            "headers": _texts(headers),
            "trailers": _texts(call.recording.trailers),
            "expiresAt": expires_at,
            "view": {
                **view_of(call),
                "state": call.state if ending is None else ending.state,
                "expiresAt": time_text(expires_at),
            },
            "extra": dict(call.extra),
        }
        return orjson.dumps(document) + b"\n"


def _response_of(call: DetachedCall) -> tuple[int, Headers, bytes | None]:
    """Return status, headers and body of what is stored; no body: it is that of the recording."""
    ending, recording = call.ending, call.recording
    if ending is None or ending.problem is None:
        return recording.status, recording.headers, recording.whole()
    status, headers, body = problem_for(
        ending.problem, instance_of(call.target), call.request_id, id_header=False
    )
    return status, with_platform_headers(headers, status, call.request_id), body


def _texts(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _headers(texts: list[list[str]]) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in texts]


def _shown(document: dict[str, Any]) -> Shown:
    """Read the line of a stored response. Raises ValueError, KeyError or TypeError."""
    if document["schema"] != _SCHEMA:
        raise ValueError("of another schema")
    return Shown(
        document["account"],
        document["owner"],
        document["functionId"],
        document["functionVersionId"],
        document["kind"],
        document["method"].encode("latin-1"),
        document["status"],
        _headers(document["headers"]),
        _headers(document["trailers"]),
        document["expiresAt"],
        document["view"],
        document["extra"],
    )


class _Feed:
    """Follows a recording piece by piece: a `gateway.requests.recording.Follower`."""

    def __init__(self, recording: Recording) -> None:
        self._pieces: list[bytes] = []
        self._is_over = self._is_broken = False
        self._woken = asyncio.Event()
        self._cursor = recording.follow(self)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body. Raises `StoreUnavailable` if it cannot be read."""
        try:
            while True:
                self._cursor.resume()
                if not self._pieces and not self._is_over:
                    self._woken.clear()
                    await self._woken.wait()
                pieces, self._pieces = self._pieces, []
                for piece in pieces:
                    yield piece
                if self._is_broken:
                    raise StoreUnavailable(UNAVAILABLE, cause="the recording cannot be read")
                if self._is_over and not self._pieces:
                    return
        finally:
            self._cursor.leave()

    def recorded_head(self, recording: Recording) -> None:
        """The head is in the line."""

    def recorded_data(self, data: bytes) -> None:
        self._pieces.append(data)
        self._cursor.pause()
        self._woken.set()

    def recorded_end(self) -> None:
        self._is_over = True
        self._woken.set()

    def recorded_broken(self) -> None:
        self._is_over = self._is_broken = True
        self._woken.set()


async def _pieces(line: bytes, recording: Recording) -> AsyncIterator[bytes]:
    yield line
    async for piece in _Feed(recording).pieces():
        yield piece
