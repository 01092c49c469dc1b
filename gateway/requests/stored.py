"""Responses of detached calls in the object store, where every gateway process finds them.

An object is one line of JSON, `_schema` 1, and then the body. The line has what callers see of the
call (`gateway.requests.views`), whose it is, and the head of the response.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
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
from wire.http1 import split_lines
from wire.problem import instance_of

PREFIX = "responses/"
_OCTETS = "application/octet-stream"
_SCHEMA = 1
_MAX_LINE_BYTES = 1_048_576


class Shown(NamedTuple):
    """What is known of a stored response before its body. ``expires_at`` is in Unix seconds.

    ``body_bytes`` is the length that was announced, also for a HEAD; ``None`` if none was.
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
    body_bytes: int | None
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
        parts: AsyncIterator[bytes],
    ) -> None:
        """``begun`` is what was read of the body; ``parts`` bring the rest."""
        self._reader = reader
        self._begun = begun
        self._parts = parts
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
        """Yield the body in parts. Raises `StoreUnavailable`."""
        begun, self._begun = self._begun, b""
        if begun:
            yield begun
        async for part in self._parts:
            yield part


class StoredResponses:
    """Writes, finds and deletes stored responses."""

    def __init__(self, store: ObjectStore, retention_s: float) -> None:
        self._store = store
        self.retention_s = retention_s

    async def put(self, call: DetachedCall) -> None:
        """Store what became of ``call``, which is over. Raises `StoreUnavailable`."""
        recording = call.recording
        line, body = self._line(call)
        if body is not None:
            parts, size = _one(line + body), len(line) + len(body)
        else:
            parts, size = _parts(line, recording), len(line) + recording.size
        key = PREFIX + call.request_id
        await self._store.put(key, parts, size=size, content_type=_OCTETS)

    async def put_short(self, calls: Sequence[DetachedCall]) -> None:
        """Store what became of several calls, whose responses are in memory.

        Raises `StoreUnavailable`; then some of them may be stored.
        """
        objects: list[tuple[str, bytes]] = []
        for call in calls:
            line, body = self._line(call)
            objects.append((PREFIX + call.request_id, line + (body or b"")))
        await self._store.put_batch(objects, content_type=_OCTETS)

    async def find(self, request_id: str) -> StoredResponse | None:
        """Open a stored response, `None` if there is none. Raises `StoreUnavailable`."""
        try:
            reader = await self._store.get(PREFIX + request_id)
        except ObjectNotFound:
            return None
        try:
            parts = aiter(reader)
            data = b""
            while b"\n" not in data and len(data) < _MAX_LINE_BYTES:
                data += await anext(parts)
            line, _, begun = data.partition(b"\n")
            size = reader.info.size - len(line) - 1
            return StoredResponse(reader, _shown(orjson.loads(line)), size, begun, parts)
        except (ValueError, KeyError, TypeError, StopAsyncIteration) as error:
            await reader.__aexit__(None, None, None)
            raise StoreUnavailable(UNAVAILABLE, cause="not a stored response") from error

    async def delete(self, request_id: str) -> None:
        """Delete a stored response, if there is one. Raises `StoreUnavailable`."""
        await self._store.delete(PREFIX + request_id)

    def _line(self, call: DetachedCall) -> tuple[bytes, bytes | None]:
        """Return the line and the body; no body: it is that of the recording, not in memory."""
        status, headers, body_bytes, body = _response_of(call)
        ending = call.ending
        finished_at = call.created_at if ending is None else ending.finished_at
        expires_at = finished_at + self.retention_s
        view = view_of(call)
        if ending is not None:
            view["state"] = ending.state
        view["expiresAt"] = time_text(expires_at)
        document = {
            "schema": _SCHEMA,
            "account": call.account,
            "owner": call.owner,
            "functionId": call.function_id,
            "functionVersionId": call.version_id,
            "kind": call.kind,
            "method": call.method.decode("latin-1"),
            "status": status,
            "headers": headers,
            "trailers": _texts(call.recording.trailers),
            "bodyBytes": body_bytes,
            "expiresAt": expires_at,
            "view": view,
            "extra": dict(call.extra),
        }
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE), body


def is_short(call: DetachedCall) -> bool:
    """Return whether what is stored of a call that is over is in memory."""
    ending = call.ending
    return (ending is not None and ending.problem is not None) or call.recording.whole() is not None


def _response_of(
    call: DetachedCall,
) -> tuple[int, list[tuple[str, str]], int | None, bytes | None]:
    """Return status, headers, announced length and body of what is stored.

    No body: it is that of the recording, not in memory.
    """
    ending, recording = call.ending, call.recording
    if ending is None or ending.problem is None:
        encoded = recording.encoded
        if encoded is None:
            texts = _texts(recording.headers)
        else:
            texts = [*_texts_of(encoded.lines), *_texts(split_lines(recording.more_lines))]
        return recording.status, texts, recording.body_bytes, recording.whole()
    status, headers, body = problem_for(
        ending.problem, instance_of(call.target), call.request_id, id_header=False
    )
    texts = _texts(with_platform_headers(headers, status, call.request_id))
    return status, texts, len(body), body


@lru_cache(maxsize=256)
def _texts_of(lines: bytes) -> list[tuple[str, str]]:
    """Return `_texts` of the lines of an encoded head, which repeat."""
    return _texts(split_lines(lines))


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
        document.get("bodyBytes"),
        document["expiresAt"],
        document["view"],
        document["extra"],
    )


class _Feed:
    """Follows a recording part by part: a `gateway.requests.recording.Follower`."""

    def __init__(self, recording: Recording) -> None:
        self._parts: list[bytes] = []
        self._is_over = self._is_broken = False
        self._woken = asyncio.Event()
        self._cursor = recording.follow(self)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body. Raises `StoreUnavailable` if it cannot be read."""
        try:
            while True:
                self._cursor.resume()
                if not self._parts and not self._is_over:
                    self._woken.clear()
                    await self._woken.wait()
                parts, self._parts = self._parts, []
                for part in parts:
                    yield part
                if self._is_broken:
                    raise StoreUnavailable(UNAVAILABLE, cause="the recording cannot be read")
                if self._is_over and not self._parts:
                    return
        finally:
            self._cursor.leave()

    def recorded_head(self, recording: Recording) -> None:
        """The head is in the line."""

    def recorded_data(self, data: bytes) -> None:
        self._parts.append(data)
        self._cursor.pause()
        self._woken.set()

    def recorded_end(self) -> None:
        self._is_over = True
        self._woken.set()

    def recorded_broken(self) -> None:
        self._is_over = self._is_broken = True
        self._woken.set()


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _parts(line: bytes, recording: Recording) -> AsyncIterator[bytes]:
    yield line
    async for part in _Feed(recording).parts():
        yield part
