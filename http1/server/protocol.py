"""One HTTP/1.1 connection: bytes to requests, responses to bytes, and every wait bounded.

One request is served at a time. What a client sends ahead (pipelining) stays raw bytes until its
turn, so answers are in order by construction; beyond the high-water mark nothing is read.
What an EOF, an early answer and a silent peer mean: `http1.server`.
"""

import logging
from math import inf
from time import monotonic

from http1.server.body import ChunkedBody, SizedBody
from http1.server.connections import Connections
from http1.server.http_error import Refusal, failed, late, malformed
from http1.server.request_head import EXPECTS_CONTINUE, check_partial, read_head, target_of
from http1.server.response import CONTINUE, Http1Response
from http1.server.transport import OPEN, PROBE_AFTER_S, PeerConnection, fresh_id
from http1.stream import Request, RequestStream

log = logging.getLogger("http1.server")


class Http1Protocol(PeerConnection):
    """One connection. Made by the listener."""

    __slots__ = (
        "_body",
        "_expects_continue",
        "_goes_on_soon",
        "_got_eof",
        "_held",
        "_is_body_paused",
        "_owes_arrived",
        "_response",
        "_target",
    )

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._response: Http1Response | None = None
        self._target = b""  # what is being served, for a refusal of its rest
        self._held = bytearray()
        self._body: SizedBody | ChunkedBody | None = None
        self._is_body_paused = False
        self._expects_continue = False
        self._owes_arrived = False
        self._got_eof = False
        self._goes_on_soon = False

    # What the transport says

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._state != OPEN:
            self.discard(len(data))
            return
        if self._held or self._is_blocked():
            self._held += data
            if self._is_blocked():
                self._limit_held()
                return
            data = self._take_held(len(data))
        if data:
            self._read(data)

    def eof_received(self) -> bool:
        """The client sends nothing more; True keeps the connection for our answer."""
        response = self._response
        if self._state != OPEN or response is None:
            return False
        self._got_eof = True
        self._is_reading = False
        if response.is_http_1_0 or not self._refuse_lost_body():
            self.sends_no_more()
        return self._state == OPEN

    def sends_no_more(self) -> None:
        """The client is gone, unless an interim response finds it there."""
        response = self._response
        if response is None or response.is_http_1_0 or response.is_started:
            self.peer_lost()
            return
        self._is_probed = True
        self.write(CONTINUE)
        self._connections.loop.call_later(PROBE_AFTER_S, self.check_peer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        self._drop_response()

    def pause_writing(self) -> None:
        """More waits for the client than the high-water mark allows."""
        self.is_writing_paused = True
        receiver = self._receiver()
        if receiver is not None:
            receiver.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.is_writing_paused = False
        receiver = self._receiver()
        if receiver is not None:
            receiver.resume_writing()
        elif self._held:
            self._go_on_soon()

    # From bytes to requests

    def _read(self, data: bytes) -> None:
        """Take what can be taken now; hold the rest."""
        self._is_corked = True
        at = len(data)
        try:
            at = self._read_from(data)
        except Refusal as refusal:
            self.refuse(refusal)
        except Exception:
            request_id = fresh_id()
            log.exception("edge.exchange_failed", extra={"fields": {"request_id": request_id}})
            self.refuse(failed(), request_id)
        self._is_corked = False
        if self._out:
            self.flush()
        if at < len(data) and self._state == OPEN:
            self._held += data[at:] if at else data
            if self._is_blocked():
                self._limit_held()

    def _read_from(self, data: bytes) -> int:
        """Return how far ``data`` was taken."""
        at = 0
        end = len(data)
        turns = self._limits.max_pipelined
        while at < end and self._state == OPEN:
            if self._response is not None:
                if self._is_body_paused or self._body is None:
                    break
                at = self._read_body(data, at)
                continue
            if self.is_writing_paused:
                break
            if not turns:
                self._go_on_soon()
                break
            turns -= 1
            # RFC 9112 §2.2: empty lines before a request line are skipped.
            while data.startswith(b"\r\n", at):
                at += 2
            head_end = data.find(b"\r\n\r\n", at)
            if head_end < 0:
                self._await_head(data, at)
                break
            request, flags = read_head(data[at:head_end], self._limits, monotonic())
            at = self._begin(request, flags, data, head_end + 4)
        return at

    def _await_head(self, data: bytes, at: int) -> None:
        """A head is incomplete: it has to come in time and must not be too large."""
        if at < len(data):
            check_partial(data[at:], self._limits)
            if not self._held:
                self.wait(self._limits.head_timeout_s)

    def _begin(self, request: Request, flags: int, data: bytes, at: int) -> int:
        """Dispatch ``request``, whose body begins in ``data`` at ``at``; return how far it went."""
        self._target = request.target
        response = Http1Response(self, flags, request.method == b"HEAD")
        length = request.body_bytes
        self._is_body_paused = False
        self._expects_continue = False
        self._deadline = inf
        if length is None:
            return self._begin_chunked(request, response, data, at, flags)
        body_end = at + length
        self._response = response
        if body_end <= len(data) and length <= self._limits.high_water_bytes:
            # The usual case: all of it is here.
            receiver = self._dispatch(request, response)
            if length and self._response is response:
                receiver.request_data(data[at:body_end])
            if self._response is response:
                receiver.request_end()
            return body_end
        self._body = SizedBody(length)
        self._expects_continue = bool(flags & EXPECTS_CONTINUE) and at == len(data)
        self._dispatch(request, response)
        return self._read_body(data, at)

    def _begin_chunked(
        self, request: Request, response: Http1Response, data: bytes, at: int, flags: int
    ) -> int:
        self._expects_continue = bool(flags & EXPECTS_CONTINUE) and at == len(data)
        body = ChunkedBody()
        # Before the dispatch, so that a body that is all here is known as such.
        piece, at = body.take(data, at, self._limits.high_water_bytes)
        self._response = response
        if not body.is_complete:
            self._body = body
            self._owes_arrived = True
        receiver = self._dispatch(request, response)
        if piece and self._response is response:
            receiver.request_data(piece)
        if not body.is_complete:
            return self._read_body(data, at)
        if self._response is response:
            receiver.request_end()
        return at

    def _dispatch(self, request: Request, response: Http1Response) -> RequestStream:
        receiver = self._connections.dispatch(request, response)
        if self._response is response:
            response.receiver = receiver
            if self.is_writing_paused:
                receiver.pause_writing()
        return receiver

    def _read_body(self, data: bytes, at: int) -> int:
        """Deliver body bytes from ``data``; return how far it went."""
        response, body, receiver = self._response, self._body, self._receiver()
        if response is None or body is None or receiver is None:
            return at
        enough_bytes = self._limits.high_water_bytes
        while at < len(data) and not self._is_body_paused and not body.is_complete:
            self._expects_continue = False
            piece, at = body.take(data, at, enough_bytes)
            if piece:
                receiver.request_data(piece)
                if self._response is not response:
                    return at
        if body.is_complete:
            self._body = None
            self._deadline = inf
            receiver.request_end()
            return at
        if self._owes_arrived and at == len(data):
            self._owes_arrived = False
            receiver.first_part_end()
        if self._response is response:
            self._want_body()
        return at

    # Bytes that wait

    def _is_blocked(self) -> bool:
        """Whether what arrives has to wait."""
        if self._goes_on_soon:
            return True
        if self._response is not None:
            return self._is_body_paused or self._body is None
        return self.is_writing_paused

    def _refuse_lost_body(self) -> bool:
        """Refuse, at EOF, a body that can never be complete; False when there is none."""
        if self._body is None or not self._body.is_lost(len(self._held)):
            return False
        self.refuse(malformed("The connection ended before the request's body did"))
        return True

    def _limit_held(self) -> None:
        if len(self._held) >= self._limits.high_water_bytes:
            self.pause_reading()

    def _take_held(self, fresh_bytes: int) -> bytes:
        """Return what is held, for reading; nothing while it is only the beginning of a head."""
        held = self._held
        if self._response is None and fresh_bytes:
            # Look at fresh bytes only: a head that comes byte by byte must not cost its square.
            if held.find(b"\r\n\r\n", max(0, len(held) - fresh_bytes - 3)) < 0:
                try:
                    check_partial(held, self._limits, len(held) - fresh_bytes)
                except Refusal as refusal:
                    self.refuse(refusal)
                return b""
        data = bytes(held)
        held.clear()
        return data

    def _go_on_soon(self) -> None:
        if not self._goes_on_soon:
            self._goes_on_soon = True
            self._connections.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Read on from what is held, then from the socket."""
        self._goes_on_soon = False
        if self._state != OPEN:
            return
        if self._held and not self._is_blocked():
            self._read(self._take_held(0))
        if self._state != OPEN:
            return
        if not self._got_eof:
            if len(self._held) < self._limits.high_water_bytes or not self._is_blocked():
                self.resume_reading()
        elif self._response is not None:
            self._refuse_lost_body()
        elif not self._is_blocked():
            self._close()

    # What a response does (`http1.server.response.Http1Connection`)

    def closes_after(self) -> bool:
        """Whether the connection cannot outlive a response that begins now."""
        return self._connections.draining or self._body is not None

    def response_over(self, tail: bytes, closes: bool) -> None:
        """The response ends with ``tail``: now the next request, or the end."""
        self._response = None
        self._target = b""
        if tail:
            self.write(tail)
        if closes or self._connections.draining:
            self._close()
            return
        self.wait(self._limits.idle_timeout_s)
        if not self._is_corked:
            # The whole response in one write, before whatever else this turn of the loop has to do.
            self.flush()
            if self._held or self._got_eof:
                self._go_on_soon()

    def pause_body(self) -> None:
        """Deliver no more of the body; some is still read, to see the client leave."""
        self._is_body_paused = True
        if self._body is not None:
            self._deadline = inf

    def resume_body(self) -> None:
        """Deliver the body again, not before this call returned."""
        if self._is_body_paused:
            self._is_body_paused = False
            if self._body is not None:
                self._want_body()
                if self._held:
                    self._go_on_soon()

    def _want_body(self) -> None:
        """Somebody waits for the body: ask for it if need be, and not forever."""
        if self._is_body_paused:
            return
        response = self._response
        if self._expects_continue and response is not None and not response.is_started:
            self._expects_continue = False
            self.write(CONTINUE)
        self.wait(self._limits.body_stall_s)

    # Ends

    def _close(self) -> None:
        is_read = self._body is None and not self._held
        self._held.clear()
        self.close(linger=not (is_read or self._got_eof))

    def refuse(self, refusal: Refusal, request_id: str = "") -> None:
        """Answer what is no request, or ends as none, and close."""
        response = self._response
        is_started = response is not None and response.is_started
        self._drop_response()
        if self._state != OPEN:
            return
        if is_started:
            self.reset()
            return
        self.write_refusal(refusal, self._target or refusal.target, request_id)
        self._held.clear()
        self.close(linger=not self._got_eof)

    def peer_lost(self) -> None:
        """Nothing can be sent any more: tell the receiver, then reset."""
        self._drop_response()
        self.reset()

    def _drop_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.disconnect()
            if response.receiver is not None:
                response.receiver.request_broken()

    def reset(self) -> None:
        """End at once so that the peer sees a broken stream; the receiver is not told."""
        self._response = None
        self._held.clear()
        super().reset()

    def time_is_up(self) -> None:
        """The client let its time pass."""
        if self._response is not None or self._held:
            self.refuse(late(target_of(self._held, self._limits)))
        else:
            self._close()

    def drain(self) -> None:
        """Close as soon as no exchange is open."""
        if self._state == OPEN and self._response is None and not self._held:
            self._close()

    def _receiver(self) -> RequestStream | None:
        return None if self._response is None else self._response.receiver
