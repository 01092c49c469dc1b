"""Serves the signed URLs of the local object store: GET and HEAD with ranges, PUT.

Bodies pass through in pieces; the next one is read when the one before has left. The REST API's
server is not in the path.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from urllib.parse import quote
from weakref import WeakValueDictionary

from gateway.dispatch.responses import send_problem, with_ids
from gateway.errors import BodyTooLarge, GatewayError, MethodNotAllowed, NotFound, TooManyTransfers
from gateway.objects.interface import ObjectInfo, ObjectNotFound, ObjectStore
from gateway.objects.ranges import chosen_range, etag_of, last_modified_of
from gateway.objects.signed_urls import PermittedDownload, PermittedUpload, UrlSigner
from gateway.routing.cross_origin import PageAccess
from http1.stream import Headers, NullRequestStream, Request, RequestStream, ResponseWriter
from runtime.tasks import spawn
from wire.headers import CONTENT_TYPE, NVCF_REQID

MAX_TRANSFERS = 128
"""Transfers of a listener at a time, each with two pieces in memory; a further one gets 503.

An account that has more of them than are free gets 503 too: one alone has half, the next one half
of the rest, and whoever comes finds one free.
"""
_HELD_BYTES = 262_144
"""Bytes of an upload that wait for the disk; then no more are read."""

Room = Callable[[str], Awaitable[int | None]]
"""Returns how many bytes an object may have, `None`: as the URL says. Raises `GatewayError`."""
OnTransfer = Callable[[Request, int, str], None]
"""Called with each request, the status of its response and the request id in it."""


class ObjectEndpoint:
    """Serves requests whose path begins with `gateway.objects.signed_urls.PATH`."""

    __slots__ = (
        "_ends",
        "_of_accounts",
        "_on_response",
        "_room",
        "_signer",
        "_store",
        "_transfers",
    )

    def __init__(
        self, store: ObjectStore, signer: UrlSigner, room: Room, on_response: OnTransfer
    ) -> None:
        self._store = store
        self._signer = signer
        self._room = room
        self._on_response = on_response
        self._transfers = 0
        self._of_accounts: Counter[str] = Counter()
        """Transfers by the account's part of the object's key, its assets and large responses."""
        self._ends: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def serve(self, request: Request, client: ResponseWriter, access: PageAccess) -> RequestStream:
        """Serve one request; ``access`` is what its response gets for web pages.

        Raises `MethodNotAllowed` and `TooManyTransfers`.
        """
        if request.method not in _METHODS:
            raise MethodNotAllowed(headers=[(b"allow", b"GET, HEAD, PUT")])
        if self._transfers >= MAX_TRANSFERS:
            raise TooManyTransfers
        response = _Response(request, client, access._replace(is_linked=True), self._on_response)
        transfer: _Transfer
        if request.method == b"PUT":
            upload = _ReceivedBody(client)
            transfer, work = upload, partial(self._receive, request, upload, response)
        else:
            transfer = _Transfer()
            work = partial(self._send, request, transfer, response)
        self._transfers += 1
        task = transfer.task = spawn(self._run(work, response), "objects.transfer")
        # Not in the task: a client that leaves at once cancels it before it has begun.
        task.add_done_callback(self._ended)
        return transfer

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._transfers -= 1

    async def _run(self, work: Callable[[], Awaitable[None]], response: "_Response") -> None:
        try:
            await work()
        except ObjectNotFound:
            response.fail(NotFound("The object is not there"))
        except GatewayError as error:
            response.fail(error)
        except asyncio.CancelledError:
            response.abort()
            raise
        except Exception:
            response.fail(GatewayError())
            raise

    async def _send(self, request: Request, transfer: "_Transfer", response: "_Response") -> None:
        permitted = await self._signer.check_download(request.target)
        with self._share_of(permitted.key):
            await self._send_object(request, permitted, transfer, response)

    async def _send_object(
        self,
        request: Request,
        permitted: PermittedDownload,
        transfer: "_Transfer",
        response: "_Response",
    ) -> None:
        if request.method == b"HEAD":
            info = await self._store.stat(permitted.key)
            if info is None:
                raise ObjectNotFound(permitted.key)
            response.send_head(200, _headers(info, permitted), info.size)
            response.end()
            return
        chosen, state = None, ""
        if b"range" in request.values:
            looked_at = await self._store.stat(permitted.key)
            if looked_at is None:
                raise ObjectNotFound(permitted.key)
            chosen, state = chosen_range(request.values, looked_at), looked_at.etag
        first, last = chosen or (0, None)
        async with await self._store.get(permitted.key, first, last) as reader:
            info = reader.info
            headers = _headers(info, permitted)
            if chosen is None:
                response.send_head(200, headers, info.size)
            else:
                if info.etag != state:
                    raise NotFound("The object was replaced")
                first, last = chosen
                headers.append((b"content-range", b"bytes %d-%d/%d" % (first, last, info.size)))
                response.send_head(206, headers, last - first + 1)
            async for data in reader:
                await transfer.wait_writable(response.client)
                response.client.send_data(data)
        response.end()

    async def _receive(
        self, request: Request, body: "_ReceivedBody", response: "_Response"
    ) -> None:
        permitted = await self._signer.check_upload(request.target, request.values)
        with self._share_of(permitted.key):
            await self._receive_object(request, permitted, body, response)

    async def _receive_object(
        self,
        request: Request,
        permitted: PermittedUpload,
        body: "_ReceivedBody",
        response: "_Response",
    ) -> None:
        room = await self._room(permitted.key)
        limit = permitted.max_bytes if room is None else min(room, permitted.max_bytes)
        if limit < (request.body_bytes or 0):
            raise BodyTooLarge.above(limit)
        body.begin()
        async with AsyncExitStack() as end:

            async def chunks() -> AsyncIterator[bytes]:
                received = 0
                async for data in body.read():
                    received += len(data)
                    if received > limit:
                        raise BodyTooLarge.above(limit)
                    yield data
                if room is not None:
                    # Others may have uploaded meanwhile. One at a time: each is to see the one
                    # before.
                    await end.enter_async_context(self._end_of(permitted.key))
                    now = await self._room(permitted.key)
                    if now is not None and received > now:
                        raise BodyTooLarge.above(now)

            await self._store.put(
                permitted.key,
                chunks(),
                size=request.body_bytes,
                content_type=permitted.content_type,
                meta=permitted.meta,
            )
        response.send_head(200, [], 0)
        response.end()

    @contextmanager
    def _share_of(self, key: str) -> Iterator[None]:
        """Count a transfer while the block runs. Raises `TooManyTransfers`."""
        account = key.partition("/")[2].rpartition("/")[0]
        if self._of_accounts[account] > MAX_TRANSFERS - self._transfers:
            raise TooManyTransfers("The account has as many transfers as this process can give it")
        self._of_accounts[account] += 1
        try:
            yield
        finally:
            self._of_accounts[account] -= 1
            if not self._of_accounts[account]:
                del self._of_accounts[account]

    def _end_of(self, key: str) -> asyncio.Lock:
        """Return the lock for what has the same prefix as ``key``."""
        prefix = key.rpartition("/")[0]
        lock = self._ends.get(prefix)
        if lock is None:
            lock = self._ends[prefix] = asyncio.Lock()
        return lock


_METHODS = frozenset({b"GET", b"HEAD", b"PUT"})


class _Transfer(NullRequestStream):
    """The stream of one request. ``task`` does the work; it ends when the client leaves."""

    __slots__ = ("_writable", "task")

    def __init__(self) -> None:
        self._writable = asyncio.Event()
        self._writable.set()
        self.task: asyncio.Task[None] | None = None

    def request_broken(self) -> None:
        """Stop: the client has left."""
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        """Send no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Send again."""
        self._writable.set()

    async def wait_writable(self, client: ResponseWriter) -> None:
        """Wait until the client reads."""
        if client.is_writing_paused():
            await self._writable.wait()


class _ReceivedBody(_Transfer):
    """The body of an upload: what has arrived and is not written yet."""

    __slots__ = ("_arrived", "_client", "_data", "_held_bytes", "_is_complete", "_is_paused")

    def __init__(self, client: ResponseWriter) -> None:
        """Reads no more of the body than what came with the head, until `begin`."""
        super().__init__()
        self._client = client
        self._data: deque[bytes] = deque()
        self._held_bytes = 0
        self._arrived = asyncio.Event()
        self._is_complete = False
        self._is_paused = True
        client.pause_reading()

    def begin(self) -> None:
        """Read the body: it is permitted."""
        self._is_paused = False
        self._client.resume_reading()

    def request_data(self, data: bytes) -> None:
        """Hold the data; read no more if it is much."""
        self._data.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES and not self._is_paused:
            self._is_paused = True
            self._client.pause_reading()
        self._arrived.set()

    def request_end(self) -> None:
        """The body is complete."""
        self._is_complete = True
        self._arrived.set()

    async def read(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        while True:
            while self._data:
                data = self._data.popleft()
                self._held_bytes -= len(data)
                yield data
            if self._is_complete:
                return
            if self._is_paused:
                self.begin()
            self._arrived.clear()
            await self._arrived.wait()


class _Response:
    """The response of one request, or a problem document in its place."""

    __slots__ = ("_access", "_has_head", "_is_over", "_on_response", "_request", "client")

    def __init__(
        self, request: Request, client: ResponseWriter, access: PageAccess, on_response: OnTransfer
    ) -> None:
        self._request = request
        self.client = client
        self._access = access
        self._on_response = on_response
        self._has_head = False
        self._is_over = False

    def send_head(self, status: int, headers: Headers, body_bytes: int) -> None:
        complete = with_ids(headers)
        self._has_head = True
        request_id = dict(complete)[NVCF_REQID].decode()
        self._on_response(self._request, status, request_id)
        self.client.send_head(status, self._access.of_own_response(complete), body_bytes)

    def end(self) -> None:
        self._is_over = True
        self.client.send_end()

    def fail(self, error: GatewayError) -> None:
        """End with a problem document, or broken if the response has begun."""
        if self._has_head:
            self.abort()
        elif not self._is_over:
            self._is_over = True
            error.headers = self._access.of_own_response(error.headers)
            request_id = send_problem(self._request, self.client, error)
            self._on_response(self._request, error.status, request_id)

    def abort(self) -> None:
        """End so that the client sees a broken response."""
        if not self._is_over:
            self._is_over = True
            self.client.abort()


def _headers(info: ObjectInfo, permitted: PermittedDownload) -> Headers:
    headers: Headers = [
        (CONTENT_TYPE, info.content_type.encode("latin-1", "replace")),
        (b"etag", etag_of(info)),
        (b"last-modified", last_modified_of(info)),
        (b"accept-ranges", b"bytes"),
        # Anybody's file, at the gateway's origin: a browser must not run it.
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"sandbox"),
    ]
    if permitted.file_name:
        name = quote(permitted.file_name, safe="").encode()
        headers.append((b"content-disposition", b"attachment; filename*=UTF-8''" + name))
    return headers
