"""One HTTP/1.1 connection: bytes to requests, responses to bytes, and every wait bounded.

One request is served at a time. Requests that a client sends ahead (pipelining) stay raw bytes
until their turn, so responses are in order by construction; beyond the high-water mark the socket
is not read. `http1.server` describes how EOF, early responses and silent peers are handled.

Longer than 400 lines, because every method shares the state of the one connection and the one
request; parts of it in other classes would cost calls for every request.
"""

import asyncio
import logging
import re
from math import inf
from time import monotonic

from http1.body import BodyError, ChunkedBody, SizedBody
from http1.server.connections import Connections
from http1.server.http_error import (
    HttpError,
    bad_request,
    encode_error_response,
    internal_error,
    request_timeout,
)
from http1.server.request_head import EXPECTS_CONTINUE, about, check_partial, read_head
from http1.server.response import CONTINUE, Http1Response
from http1.server.transport import LINGERING, LOST, OPEN, PeerConnection
from http1.server.tunnel import TUNNEL, Tunnel
from http1.stream import Request, RequestStream, TakeChunk
from runtime.ids import new_uuid

MAX_REFUSED_CONNECTIONS = 256
"""Maximum number of connections above the limit that get 503 at a time; further ones are reset."""
LAST_IDLE_S = 1.0
"""Time for a further request after a response that could not announce the end: the drain began
later than the response. The response to that request announces it."""
PROBED_AFTER_S = (0.001, 0.004, 0.02)
"""When a half-closed client is checked again; later ones come with `Connections.check`."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""What looks like a request head in the preface of HTTP/2."""
_blank_lines = re.compile(rb"(?:\r\n){0,8}").match

log = logging.getLogger("http1.server")


class Http1Protocol(PeerConnection):
    """One connection of a client. The listener makes it."""

    __slots__ = (
        "_body",
        "_expects_continue",
        "_got_eof",
        "_held",
        "_is_body_paused",
        "_is_probed",
        "_owes_first_part_end",
        "_reads_on_soon",
        "_response",
        "_successor",
        "_target",
    )

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._response: Http1Response | None = None
        self._target = b""  # of the request being served, for an error in its body
        self._held = bytearray()
        self._body: SizedBody | ChunkedBody | Tunnel | None = None
        self._is_body_paused = False
        self._expects_continue = False
        self._owes_first_part_end = False
        self._got_eof = False
        self._is_probed = False
        self._reads_on_soon = False
        self._successor: asyncio.Protocol | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes received that wait for their turn."""
        return len(self._held)

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or respond 503 if there are too many."""
        super().connection_made(transport)
        self._connections.add(self)
        excess = len(self._connections) - self._limits.max_connections
        if excess > MAX_REFUSED_CONNECTIONS:
            self.reset()
        elif excess > 0:
            self.send_error(HttpError(503, "too-many-connections", "Too many connections are open"))

    def data_received(self, data: bytes) -> None:
        """Read bytes from the client."""
        response, body = self._response, self._body
        if response is not None and response.take_chunk is not None and body is not None:
            size = 0 if self._held or self._is_blocked() else body.whole(data)
            if size:
                self._pass_chunk(response, response.take_chunk, data, size)
                return
        if self._state is not OPEN:
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
        """The client sends nothing more; True keeps the connection open for the response."""
        response = self._response
        if self._state is not OPEN or response is None:
            return False
        self._got_eof = True
        self._is_reading = False
        if self._body is TUNNEL:
            self._end_tunnel_in()
        elif response.is_http_1_0 or not self._reject_truncated_body():
            self._probe_peer()
        return self._state is OPEN

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from those of its listener and end the request's stream."""
        super().connection_lost(exc)
        self._connections.remove(self)
        self._break_stream()

    def pause_writing(self) -> None:
        """Pause the producer: more waits for the client than the high-water mark allows."""
        self.is_writing_paused = True
        stream = self._stream()
        if stream is not None:
            stream.pause_writing()

    def resume_writing(self) -> None:
        """Resume the producer: the client has caught up."""
        self.is_writing_paused = False
        stream = self._stream()
        if stream is not None:
            stream.resume_writing()
        elif self._held:
            self._read_on_soon()

    # From bytes to requests

    def _read(self, data: bytes) -> None:
        """Read as far as possible now; hold the rest."""
        self._is_corked = True
        at = len(data)
        try:
            at = self._read_from(data)
        except HttpError as error:
            if error.status == 505 and self._becomes_http2(data):
                at = 0
            else:
                self.send_error(error)
        except BodyError as error:
            self.send_error(HttpError(error.status, error.kind, str(error)))
        except Exception:
            log.exception("edge.exchange_failed", extra=self._fail_exchange())
        self._is_corked = False
        if self._out:
            self.flush()
        if at < len(data) and self._state is OPEN:
            self._held += data[at:] if at else data
            if self._is_blocked():
                self._limit_held()
        elif at < len(data) and self._successor is not None:
            self._successor.data_received(data[at:])

    def _becomes_http2(self, data: bytes) -> bool:
        """Let HTTP/2 have a connection that begins with its preface (RFC 9113 §3.3)."""
        make = self._connections.http2
        if make is None or self._sent_bytes or not data.startswith(_PREFACE):
            return False
        self._hand_over(make(self._connections))
        return True

    def _pass_chunk(
        self, response: Http1Response, take_chunk: TakeChunk, chunk: bytes, size: int
    ) -> None:
        """Deliver a read that is one chunk of the body: an event of a stream, usually."""
        try:
            take_chunk(chunk, size)
        except Exception:
            log.exception("edge.exchange_failed", extra=self._fail_exchange())
        if self._response is response and not self._is_body_paused:
            self.wait(self._limits.body_stall_s)

    def _fail_exchange(self) -> dict[str, dict[str, str]]:
        """Respond 500; return what the log tells besides the error."""
        request_id = _new_request_id()
        self.send_error(internal_error(), request_id)
        return {"fields": {"request_id": request_id}}

    def _read_from(self, data: bytes) -> int:
        """Return the offset in ``data`` up to which it was read.

        Reads a bounded part: bytes, requests and chunks beyond it wait for the next turn.
        """
        at = 0
        end = len(data)
        turns = self._limits.max_pipelined
        enough_bytes = self._limits.high_water_bytes
        while at < end and self._state is OPEN:
            if self._response is not None:
                if self._is_body_paused or self._body is None or self._reads_on_soon:
                    break
                at = self._read_body(data, at)
                continue
            if self.is_writing_paused:
                break
            if not turns or at > enough_bytes:
                self._read_on_soon()
                break
            turns -= 1
            if data.startswith(b"\r\n", at):
                # RFC 9112 §2.2: a few empty lines before a request line are skipped.
                at = _blank_lines(data, at).end()  # type: ignore[union-attr]
            head_end = data.find(b"\r\n\r\n", at)
            if head_end < 0:
                self._await_head(data, at)
                break
            request, flags = read_head(data[at:head_end], self._limits, monotonic(), self._peer)
            at = self._begin(request, flags, data, head_end + 4)
        return at

    def _await_head(self, data: bytes, at: int) -> None:
        """Check that an incomplete head is not too large, and set its deadline."""
        if at < len(data):
            check_partial(data[at:], self._limits)
            if not self._held:
                self.wait(self._limits.head_timeout_s)

    def _begin(self, request: Request, flags: int, data: bytes, at: int) -> int:
        """Dispatch ``request``, whose body begins at ``at``; return the offset reached."""
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
            # The usual case: the whole body has arrived.
            stream = self._dispatch(request, response)
            if length and self._response is response:
                stream.request_data(data[at:body_end])
            if self._response is response:
                stream.request_end()
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
        self._response = response
        # Decoded before the dispatch, to know whether the whole body has arrived.
        body_data, at = body.take(data, at, self._limits.high_water_bytes)
        if not body.is_complete:
            self._body = body
            self._owes_first_part_end = True
        stream = self._dispatch(request, response)
        if body_data and self._response is response:
            stream.request_data(body_data)
        if not body.is_complete:
            return self._read_body(data, at)
        if self._response is response:
            _end_body(body, stream)
        return at

    def _dispatch(self, request: Request, response: Http1Response) -> RequestStream:
        stream = self._connections.dispatch(request, response)
        if self._response is response:
            response.stream = stream
            if self.is_writing_paused:
                stream.pause_writing()
        return stream

    def _read_body(self, data: bytes, at: int) -> int:
        """Deliver body bytes from ``data``; return the offset reached."""
        response, body, stream = self._response, self._body, self._stream()
        if response is None or body is None or stream is None:
            return at
        enough_bytes = self._limits.high_water_bytes
        while at < len(data) and not self._is_body_paused and not body.is_complete:
            self._expects_continue = False
            body_data, at = body.take(data, at, enough_bytes)
            if body_data:
                stream.request_data(body_data)
                if self._response is not response:
                    return at
            if len(body_data) < enough_bytes and at < len(data) and not body.is_complete:
                # So many small chunks that the rest waits for the next turn.
                self._read_on_soon()
                break
        if body.is_complete:
            self._body = None
            self._deadline = inf
            _end_body(body, stream)
            return at
        if self._owes_first_part_end and (at == len(data) or self._reads_on_soon):
            self._owes_first_part_end = False
            stream.first_part_end()
        if self._response is response:
            self._want_body()
        return at

    # Held bytes

    def _is_blocked(self) -> bool:
        """Whether received bytes have to wait."""
        if self._reads_on_soon:
            return True
        if self._response is not None:
            return self._is_body_paused or self._body is None
        return self.is_writing_paused

    def _reject_truncated_body(self) -> bool:
        """Respond 400, after EOF, if the held bytes do not complete the body; else return False."""
        if self._body is None or not self._body.is_truncated(len(self._held)):
            return False
        self.send_error(bad_request("The connection ended before the request's body did"))
        return True

    def _limit_held(self) -> None:
        if len(self._held) >= self._limits.high_water_bytes:
            self.pause_reading()

    def _take_held(self, fresh_bytes: int) -> bytes:
        """Return the held bytes for reading; empty while they are an incomplete head."""
        held = self._held
        if self._response is None and fresh_bytes:
            # Search fresh bytes only: a head that arrives byte by byte must not cost its square.
            if held.find(b"\r\n\r\n", max(0, len(held) - fresh_bytes - 3)) < 0:
                try:
                    check_partial(held, self._limits, len(held) - fresh_bytes)
                except HttpError as error:
                    self.send_error(error)
                return b""
        data = bytes(held)
        held.clear()
        return data

    def _read_on_soon(self) -> None:
        if not self._reads_on_soon:
            self._reads_on_soon = True
            self._connections.read_on_soon(self)

    def read_on(self) -> None:
        """Read the held bytes, then the socket."""
        self._reads_on_soon = False
        if self._state is not OPEN:
            return
        if self._held and not self._is_blocked():
            self._read(self._take_held(0))
        if self._state is not OPEN:
            return
        if self._expects_continue and self._body is not None:
            self._want_body()
        if not self._got_eof:
            if len(self._held) < self._limits.high_water_bytes or not self._is_blocked():
                self.resume_reading()
        elif self._body is TUNNEL:
            self._end_tunnel_in()
        elif self._response is not None:
            self._reject_truncated_body()
        elif not self._is_blocked():
            self._close()

    # Called by the response (`http1.server.response.Http1Connection`)

    def closes_after(self) -> bool:
        """Whether the connection has to close after a response that begins now."""
        return self._connections.draining or self._body is not None

    def own_header_lines(self, date: bool, server: bool) -> bytes:
        """Return the header lines that the server adds: Date and Server, if wanted."""
        lines = self._connections.date_line if date else b""
        return lines + self._connections.server_line if server else lines

    def end_response(self, tail: bytes, closes: bool) -> None:
        """Send ``tail``, the last bytes of the response; then close, or read the next request."""
        self._response = None
        self._target = b""
        if self._is_corked or self._out or closes:
            if tail:
                self.write(tail)
        elif tail:
            self.send(tail)
        if closes:
            self._close()
            return
        is_last = self._connections.closes_idle
        self.wait(LAST_IDLE_S if is_last else self._limits.idle_timeout_s)
        if not self._is_corked:
            self.flush()
            if self._held or self._got_eof:
                self._read_on_soon()

    def hand_over(self, successor: object) -> None:
        """Let ``successor`` have the transport; this connection is over."""
        if not isinstance(successor, asyncio.Protocol):
            raise TypeError("handed over to what is no protocol")
        self._hand_over(successor)

    def _hand_over(self, successor: asyncio.Protocol) -> None:
        self.flush()
        self._state = LOST
        self._response = self._body = None
        self._successor = successor
        self._connections.remove(self)
        self._transport.set_protocol(successor)
        successor.connection_made(self._transport)

    def open_tunnel(self) -> None:
        """Deliver all that comes, and the client's end, to the request's stream."""
        self._body = TUNNEL
        self._deadline = inf
        # Its end says nothing about whether it still reads, and no interim response can ask.
        self._is_probed = True
        if self._held or self._got_eof:
            self._read_on_soon()

    def _end_tunnel_in(self) -> None:
        """Report the client's end, once all that came before is delivered."""
        stream = self._stream()
        if stream is None or self._held or self._is_body_paused:
            return
        self._body = None
        self._deadline = inf
        stream.request_end()

    def end_tunnel(self) -> None:
        """Send what was written, then the end; what the client still sends is dropped.

        With TLS there is no end of one side only.
        """
        self._response = self._body = None
        self._target = b""
        self._held.clear()
        self.close(linger=not self._got_eof and self._transport.can_write_eof())

    def pause_body(self) -> None:
        """Stop delivering the body; some is still read, to notice when the client leaves."""
        self._is_body_paused = True
        if self._body is not None:
            self._deadline = inf

    def resume_body(self) -> None:
        """Deliver the body again, after this call has returned."""
        if self._is_body_paused:
            self._is_body_paused = False
            if self._body is None:
                return
            if not self._expects_continue:
                self._want_body()
            has_ended = self._got_eof and self._body is TUNNEL
            if self._held or self._expects_continue or has_ended:
                # Whoever resumes may still refuse the request, or pause again: then no 100.
                self._read_on_soon()

    def _want_body(self) -> None:
        """Ask for the body if the client expects 100 (Continue), and set its deadline."""
        if self._is_body_paused:
            return
        if self._body is TUNNEL:
            # It may be silent for as long as its peers like.
            self._deadline = inf
            return
        response = self._response
        if self._expects_continue and response is not None and not response.is_started:
            self._expects_continue = False
            self.write(CONTINUE)
        self.wait(self._limits.body_stall_s)

    # Ends

    def _close(self) -> None:
        has_read_all = self._body is None and not self._held
        self._held.clear()
        self.close(linger=not (has_read_all or self._got_eof))

    def send_error(self, error: HttpError, request_id: str = "") -> None:
        """Send an error response and close; if a response has begun, reset."""
        response = self._response
        is_started = response is not None and response.is_started
        self._break_stream()
        if self._state is not OPEN:
            return
        if is_started:
            self.reset()
            return
        target = self._target or error.target
        request_id = request_id or _new_request_id()
        to_head = error.to_head if response is None else response.to_head
        date_line = self._connections.date_line
        self.write(encode_error_response(error, target, request_id, date_line, to_head=to_head))
        self._connections.on_error(error, target, self._peer.address, request_id)
        self._held.clear()
        self.close(linger=not self._got_eof)

    def peer_lost(self) -> None:
        """End the request's stream with `request_broken` and reset the connection."""
        self._break_stream()
        self.reset()

    def _break_stream(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.disconnect()
            if response.stream is not None:
                response.stream.request_broken()

    def reset(self) -> None:
        """End at once so that the peer sees a broken stream; does not call the request's stream."""
        self._response = None
        self._held.clear()
        super().reset()

    def drain(self) -> None:
        """Close if no request is being served, received, or has arrived."""
        is_idle = self._state is OPEN and self._response is None and not self._held
        if is_idle and not self.unread_bytes():
            self._close()

    def _stream(self) -> RequestStream | None:
        return None if self._response is None else self._response.stream

    # Time

    def check(self, now: float) -> None:
        """Apply every time limit; ``now`` is `Connections.now`."""
        if self._deadline <= now:
            self._deadline = inf
            if self._state is OPEN:
                self._time_out()
            elif self._state is LINGERING:
                self.end_linger()
        elif self.is_peer_gone(now):
            self.peer_lost()
        if not self._is_reading:
            self._check_peer()

    def _time_out(self) -> None:
        """Respond 408 to an incomplete request; close an idle connection."""
        if self._response is not None or self._held:
            self.send_error(about(request_timeout(), self._held, self._limits))
        else:
            self._close()

    def _check_peer(self) -> None:
        """Notice a peer that left while its socket is not read: the loop does not report it."""
        if self._state is not OPEN:
            return
        if self.has_socket_error():
            self.peer_lost()
        elif self._body is TUNNEL:
            if self._deadline == inf and self.has_peer_fin():
                # It sends no more, and may be gone: what it has sent has to be taken some time.
                self.wait(self._limits.write_stall_s)
        elif not self._is_probed and self.has_peer_fin():
            self._probe_peer()

    def _probe_peer(self) -> None:
        """After the client's EOF, send an interim response to find out whether it still reads."""
        response = self._response
        if response is None or response.is_http_1_0 or response.is_started:
            self.peer_lost()
            return
        self._is_probed = True
        self.write(CONTINUE)
        self.flush()
        # The reset of a client that is near is here already.
        self._check_peer()
        if self._state is OPEN:
            for after_s in PROBED_AFTER_S:
                self._connections.loop.call_later(after_s, self._check_peer)


def _end_body(body: SizedBody | ChunkedBody | Tunnel, stream: RequestStream) -> None:
    if isinstance(body, ChunkedBody) and body.trailers:
        stream.request_trailers(body.trailers)
    stream.request_end()


def _new_request_id() -> str:
    return new_uuid()
