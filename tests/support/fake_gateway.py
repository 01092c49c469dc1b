"""The attach endpoint of a gateway process: an HTTP/1.1 server on loopback, parsed with h11.

Each expected request has its own tokens, and a test can wait for every byte of its response. The
test decides when the endpoint responds to a POST: early, late or never.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11

from runtime.tasks import spawn
from tests.support.envelopes import encoded
from tests.support.waiting import Signal, until
from wire.headers import NVCF_POLLED
from wire.http1 import parse_inner_head
from wire.worker_api import LARGE_RESPONSE_PATH, RUN_PATH, LargeResponseUrls

_numbers = itertools.count(1)


class BrokenError(Exception):
    """The worker's POST was aborted before its end."""


class Expected:
    """One request whose response the gateway expects.

    ``rest`` are the pieces that GET attach sends; an empty piece ends the body and ``None`` aborts
    the connection. If ``answer_at_once``, the POST gets a 200 when it is complete; otherwise the
    test calls `answer`.
    """

    def __init__(self, gateway: "FakeGateway", request_id: str) -> None:
        self.gateway = gateway
        self.request_id = request_id
        self.response_token = f"response-{next(_numbers)}"
        self.request_token = f"request-{request_id}"
        self.rest: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.rest_length: int | None = None
        self.answer_at_once = True
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.is_complete = False
        self.is_broken = False
        self.post_headers: dict[bytes, bytes] = {}
        self.post_count = 0
        self.trailers: list[tuple[bytes, bytes]] = []
        self.received = bytearray()
        self.received_bytes = 0
        self.keeps = True
        self.fetched = asyncio.Event()
        self.answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._grown = Signal()

    def envelope(
        self,
        method: bytes = b"POST",
        path: bytes = b"/",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        body: bytes = b"",
        *,
        has_rest: bool = False,
        age_s: float = 0.0,
        is_polled: bool = False,
        fields: bytes = b"",
    ) -> bytes:
        """Return an envelope, ``age_s`` old, that directs the worker to this gateway.

        ``is_polled``: its client uses the polling routes. ``fields`` are further encoded ones.
        """
        if not is_polled:
            headers = ((NVCF_POLLED, b"false"), *headers)
        return (
            encoded(
                request_id=self.request_id,
                nca_id="account",
                subject="caller",
                requested_at_ns=time.time_ns() - int(age_s * 1e9),
                method=method,
                path=path,
                headers=[*headers],
                body=body,
                target_uri=self.gateway.uri,
                response_token=self.response_token,
                request_token=self.request_token if has_rest else None,
            )
            + fields
        )

    def answer(self, status: int = 200) -> None:
        """Respond to the POST now, whether it is complete or not."""
        if not self.answered.done():
            self.answered.set_result(status)

    async def completed(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Wait for the whole response. Raises `BrokenError` if it is aborted."""
        await self.until(lambda: self.is_complete or self.is_broken)
        if self.is_broken:
            raise BrokenError(bytes(self.received))
        return self.response()

    async def body_reaches(self, part: bytes) -> None:
        """Wait until ``part`` has arrived. Raises `BrokenError` if the POST is aborted before."""
        await self.until(lambda: part in self.received or self.is_broken)
        if part not in self.received:
            raise BrokenError(bytes(self.received))

    async def broken(self) -> None:
        """Wait until the POST is aborted. Raises `AssertionError` if it ends cleanly."""
        await self.until(lambda: self.is_complete or self.is_broken)
        assert self.is_broken, "the POST ended cleanly"

    def response(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Return status, headers and body that have arrived so far."""
        parsed = parse_inner_head(bytes(self.received))
        assert parsed is not None, bytes(self.received)
        head, start = parsed
        headers = dict(head.headers)
        if head.body_bytes is not None:
            headers[b"content-length"] = b"%d" % head.body_bytes
        return head.status, headers, bytes(self.received[start:])

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` is true; it is evaluated again after every piece of the POST."""
        await until(
            lambda: bytes(self.received[-200:]),
            lambda _: condition(),
            what=condition,
            changed=self._grown,
        )

    def end(self, *, is_broken: bool) -> None:
        """Record the end of the POST."""
        self.is_broken, self.is_complete = is_broken, not is_broken
        self.grow()

    def grow(self, data: bytes = b"") -> None:
        self.received_bytes += len(data)
        if self.keeps:
            self.received += data
        self._grown.notify()


class FakeGateway:
    """The endpoint. ``connections`` is the number of connections accepted so far.

    ``runs`` has the headers of the questions whether to run a request again; ``run_status`` is the
    response to them. ``large_response_urls`` is the document for a worker with a large response.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.run_status = 204
        self.large_response_urls: LargeResponseUrls | None = None
        self.runs: list[dict[bytes, bytes]] = []
        self._expected: dict[bytes, Expected] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def uri(self) -> bytes:
        return b"http://127.0.0.1:%d" % self.port

    def expect(self, request_id: str = "") -> Expected:
        """Expect the response to one request; an empty ``request_id`` means a new one."""
        number = next(_numbers)
        expected = Expected(self, request_id or f"00000000-0000-4000-8000-{number:012x}")
        self._expected[b"Bearer " + expected.response_token.encode()] = expected
        self._expected[b"Bearer " + expected.request_token.encode()] = expected
        return expected

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=65536)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and abort every connection."""
        if self._server is not None:
            self._server.close()
        self.break_connections()

    def break_connections(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        exchange = _Exchange(self, self._expected, reader, writer)
        try:
            while await exchange.serve_one():
                pass
        except (ConnectionError, h11.RemoteProtocolError):
            await exchange.break_off()
        finally:
            self._writers.discard(writer)
            writer.close()


class _Exchange:
    """One connection of a worker; its requests are served one after the other."""

    def __init__(
        self,
        gateway: FakeGateway,
        expected: dict[bytes, Expected],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._gateway = gateway
        self._expected = expected
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        self._current: Expected | None = None

    async def serve_one(self) -> bool:  # noqa: PLR0911 - one for each kind of request
        """Serve one request; return False when the connection has ended."""
        request = await self._next()
        if not isinstance(request, h11.Request):
            return False
        headers = dict(request.headers)
        if request.target == RUN_PATH:
            assert headers[b"authorization"] in self._expected
            self._gateway.runs.append(headers)
            await self._respond(self._gateway.run_status)
            return False
        if request.target == LARGE_RESPONSE_PATH:
            return await self._tell_urls(headers)
        expected = self._expected.pop(headers.get(b"authorization", b""), None)
        assert request.target == b"/v2/nvcf/worker/request-attach"
        if expected is None:
            await self._respond(401)
            return False
        if request.method == b"GET":
            assert headers[b"accept"] == b"application/octet-stream"
            await self._send_rest(expected)
        else:
            assert headers[b"content-type"] == b"application/octet-stream+h1"
            expected.post_headers = headers
            expected.post_count += 1
            if not await self._take_response(expected):
                return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _tell_urls(self, headers: dict[bytes, bytes]) -> bool:
        is_known = headers[b"authorization"] in self._expected
        urls = self._gateway.large_response_urls
        status = 401 if not is_known else 404 if urls is None else 200
        await self._respond(status, json.dumps(urls).encode() if status == 200 else b"")
        return False

    async def break_off(self) -> None:
        if self._current is not None:
            self._current.end(is_broken=True)

    async def _take_response(self, expected: Expected) -> bool:
        self._current = expected
        answered = expected.answered
        while True:
            reading = spawn(self._next(), "fake-gateway.read")
            either: set[asyncio.Future[Any]] = {reading, answered}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await self._respond(answered.result())
                return False
            event = reading.result()
            if isinstance(event, h11.EndOfMessage):
                expected.trailers = list(event.headers)
                break
            if not isinstance(event, h11.Data):
                raise ConnectionError
            expected.grow(bytes(event.data))
            await expected.may_read.wait()
        self._current = None
        expected.end(is_broken=False)
        if expected.answer_at_once:
            expected.answer()
        await self._respond(await answered)
        return True

    async def _send_rest(self, expected: Expected) -> None:
        expected.fetched.set()
        framing = (
            [(b"transfer-encoding", b"chunked")]
            if expected.rest_length is None
            else [(b"content-length", b"%d" % expected.rest_length)]
        )
        await self._send(h11.Response(status_code=200, headers=framing))
        while piece := await expected.rest.get():
            await self._send(h11.Data(data=piece))
        if piece is None:
            raise ConnectionError
        await self._send(h11.EndOfMessage())
        await self._next()

    async def _respond(self, status: int, document: bytes = b"") -> None:
        headers = [(b"content-length", b"%d" % len(document))]
        if document:
            headers.append((b"content-type", b"application/json"))
        await self._send(h11.Response(status_code=status, headers=headers))
        if document:
            await self._send(h11.Data(data=document))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        assert data is not None
        self._writer.write(data)
        await self._writer.drain()

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(65536))
        return event


@asynccontextmanager
async def running_fake_gateway() -> AsyncIterator[FakeGateway]:
    """Run a fake gateway while the block runs."""
    gateway = FakeGateway()
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
