"""An invocation that asks for a WebSocket (`docs/wire.md` §22).

Until the worker says that the inference server has agreed, it is an invocation like any other, with
a body that is always fetched and never waited for. From then on it is two directions of bytes that
nobody reads here, until either side ends. It stays in STREAMING for so long. Its events and states
are those of `gateway.invocation.states`, but that a stream of HTTP/2 which ends before it is open
is refused: REQUEST_END leads to DONE then.
"""

from math import inf

from gateway.errors import BadRequest
from gateway.invocation.context import Context, Ticket, WorkerGet
from gateway.invocation.headers import with_platform_headers
from gateway.invocation.machine import Invocation
from gateway.invocation.states import (
    ATTACHED,
    DONE,
    EXPIRED,
    RECEIVING,
    STREAMING,
    Event,
    Outcome,
    impossible,
)
from gateway.invocation.upload import Upload
from gateway.routing.admission import Caller
from gateway.routing.websocket import OWN_PROTOCOL
from http1.stream import Headers, Request, ResponseWriter
from wire.headers import CONTENT_LENGTH, NVCF_UPGRADE, NVCF_UPGRADED
from wire.websocket import (
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    WEBSOCKET,
    accept_of,
    entries_of,
    with_entries,
)

CLOSING_S = 10.0
"""Time for the other side to end, once the client has sent its end."""
_LOOK_AGAIN_S = 86_400.0
"""A WebSocket without limits is looked at once a day: timers take no time that never comes."""
_UPGRADE = (NVCF_UPGRADE, WEBSOCKET)
_UPGRADED = (NVCF_UPGRADED, WEBSOCKET)


class WebSocketInvocation(Invocation):
    """One client's WebSocket. ``request.protocol`` is ``websocket``, and its handshake is valid."""

    __slots__ = (
        "_accept",
        "_closes_at",
        "_ends_at",
        "_has_end_to_come",
        "_is_open",
        "_moved_at",
        "_offers_own",
    )

    def __init__(
        self,
        context: Context[Invocation],
        client: ResponseWriter,
        request: Request,
        caller: Caller,
        ticket: Ticket,
    ) -> None:
        super().__init__(context, client, request, caller, ticket)
        self._max_body_bytes = 0
        self._upload = Upload(None, context.uploads)
        # Nothing of it is for the envelope: what comes too early is held.
        self._upload.take_first_part()
        key = request.values.get(SEC_WEBSOCKET_KEY)
        self._accept = b"" if key is None else accept_of(key)
        self._offers_own = OWN_PROTOCOL in entries_of(request.headers)
        # HTTP/1.1 ends the request, which has no body, before the WebSocket begins.
        self._has_end_to_come = request.body_bytes == 0
        self._is_open = False
        self._moved_at = 0.0
        self._closes_at = inf
        limit_s = context.websockets.max_s
        self._ends_at = request.received_at + limit_s if limit_s else inf

    # The client

    def request_data(self, data: bytes) -> None:
        """The next bytes of the WebSocket; none should come before it is open."""
        if self.state is DONE:
            return
        self._move()
        if not self._upload.add(data):
            self._client.pause_reading()

    def first_part_end(self) -> None:
        """The stream of HTTP/2 is open."""
        if self.state is RECEIVING:
            self._publish()

    def request_end(self) -> None:
        """The request is complete (HTTP/1.1), or the client sends nothing more."""
        if self._has_end_to_come:
            self._has_end_to_come = False
            if self.state is RECEIVING:
                self._publish()
        elif self.head_at and not self._is_open:
            # It was refused, and the response is on its way.
            self._upload.finish()
        elif not self._is_open:
            self._withdraw()
            if self.state is not DONE:
                self._fail(BadRequest("The client ended the stream"), Outcome.BAD_REQUEST)
        elif self.state is STREAMING:
            self._upload.finish()
            self._closes_at = self._context.clock() + CLOSING_S
            self._look_at(self._closes_at)

    def _envelope_headers(self, request: Request) -> Headers:
        headers = super()._envelope_headers(request)
        if self._offers_own:
            with_entries(headers, [one for one in entries_of(headers) if one != OWN_PROTOCOL])
        headers = [header for header in headers if header[0] != CONTENT_LENGTH]
        headers.append(_UPGRADE)
        return headers

    # The worker

    def rest_requested(self, get: WorkerGet) -> bool:
        """A worker asks for the client's bytes. Return False if it cannot have them.

        One that knows nothing of WebSockets asks for the body of the request, which is empty.
        """
        if not get.is_upgraded and self.state is not RECEIVING and self.state < EXPIRED:
            get.accept(0).send_end()
            return True
        return super().rest_requested(get)

    def _flow(self) -> None:
        """Read the client if the worker takes what it sends; the poll window goes on."""
        if self.state is not DONE and self._upload.is_flowing():
            self._client.resume_reading()

    def response_head(
        self,
        status: int,
        headers: Headers,
        announced_bytes: int | None,
        post_bytes: int | None,
        now: float,
    ) -> None:
        """The worker's response head is complete: the WebSocket is open, or refused."""
        if _UPGRADED not in headers or status != 200:
            super().response_head(status, headers, announced_bytes, post_bytes, now)
            return
        if self.state is not ATTACHED:
            raise impossible(self.state, Event.RESPONSE_HEAD)
        accepts = [value for name, value in headers if name == SEC_WEBSOCKET_ACCEPT]
        if self._accept and accepts != [self._accept]:
            self.response_invalid(502, "the handshake is not for the client's key")
            return
        self._open(headers, now)

    def _open(self, headers: Headers, now: float) -> None:
        """Tell the client that the WebSocket is open."""
        self.state = STREAMING
        self._is_open = True
        self.status = 101
        self.head_at = now
        # How long the lease was says nothing about how long such a call takes.
        self.has_waited_for_client = True
        self._leave_channel()
        if not self.is_direct:
            self._context.queue.answered(self.request_id)
        elif self._channel is None:
            self._sent = None
        self._upload.respond()
        # 200, for what the outside reads of it: `docs/wire.md` §6.1.
        headers = with_platform_headers(headers, 200, self.request_id)
        if self._offers_own and not entries_of(headers):
            headers.append((SEC_WEBSOCKET_PROTOCOL, OWN_PROTOCOL))
        self._move()
        self._look_at(inf)
        self._client.open_tunnel(headers)

    def response_data(self, data: bytes) -> None:
        """The next bytes of the inference server."""
        self._move()
        super().response_data(data)

    def response_chunk(self, chunk: bytes, size: int) -> None:
        """The next ``size`` bytes of the inference server are one chunk."""
        self._move()
        super().response_chunk(chunk, size)

    # Time

    def _move(self) -> None:
        if self._is_open and self._context.websockets.idle_s:
            self._moved_at = self._context.clock()

    def _look_at(self, at: float) -> None:
        """Let the deadline be at ``at``, or earlier if a limit is."""
        self._set_deadline(self._context.clock(), at)
        self._context.registry.moved_earlier(self.request_id)

    def _set_deadline(self, now: float, at: float = inf) -> None:
        idle_s = self._context.websockets.idle_s
        idle_at = self._moved_at + idle_s if idle_s else inf
        self.deadline = min(at, self._closes_at, self._ends_at, idle_at, now + _LOOK_AGAIN_S)

    def deadline_passed(self, now: float, retry_after_s: int) -> None:
        """``deadline`` has passed: that of the poll window, or a limit of an open WebSocket."""
        if not self._is_open:
            super().deadline_passed(now, retry_after_s)
            return
        if self.state is DONE or now < self.deadline:
            return
        self._set_deadline(now)
        if now >= self._closes_at:
            self._break(Outcome.CLIENT_GONE)
        elif now >= self.deadline:
            self._break(Outcome.TOO_LONG)
