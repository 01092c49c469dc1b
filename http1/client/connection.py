"""One HTTP/1.1 connection as a client, one request at a time (RFC 9112).

Everything that one read brings is reported in one call, so a small response is one event. A
connection is reused only if request and response were complete and no further bytes came; in any
doubtful case it is closed.
"""

import asyncio
from math import inf
from typing import Protocol, Self

from http1.body import BodyError, ChunkedBody
from http1.client.response_head import (
    MAX_HEAD_BYTES,
    DefectError,
    PartialHead,
    ResponseHead,
    known_head,
    read_head,
    seems_complete,
)
from http1.client.watched import WatchedConnection
from http1.peer import has_sent_fin, reset_on_close, unconfirmed_bytes
from http1.stream import NO_TRAILERS, Defect, Failure, Headers, ResponseStream, TakeChunk
from wire.http1 import BODILESS_STATUSES, LAST_CHUNK, chunk_data, encode_chunk, encode_last_chunk

SMALL_BODY_BYTES = 16_384
"""A body announced as at most this long is waited for shortly, to report the response whole."""
MIN_INTERIM_BYTES = 256
"""What an interim response counts for at least: `MAX_HEAD_BYTES` bounds their number too."""
LONG_READ_BYTES = 131_072
"""After a read of more bytes, the next one waits for the next turn of the loop: uvloop reads up to
32 times in one turn, and each read can bring 40,000 chunks."""
_COPIED_BYTES = 4_096
"""Below this, joining buffers is cheaper than handing the kernel several."""
_SWITCHING = 101
_UNPARSED_BYTES = 1 << 62
"""The rest of a response that is not HTTP: everything until the connection ends."""


class ConnectionOwner(Protocol):
    """Keeps the connections."""

    def released(self, connection: "ClientConnection") -> None:
        """``connection`` may be used again. Called before the end of the response is reported."""

    def lost(self, connection: "ClientConnection") -> None:
        """``connection`` is closed."""

    def delay_small_body(self, connection: "ClientConnection") -> None:
        """Call `ClientConnection.report_delayed` soon: a small response is incomplete."""


class ClientConnection(WatchedConnection):
    """A connection to one server, and the `http1.stream.RequestWriter` of its current request.

    ``response_stream`` receives the response. ``idle_since`` is loop time in seconds, valid while
    idle; ``idle_s`` for how many seconds the server keeps the connection from then on, infinite if
    it does not say.
    """

    __slots__ = (
        "_accepts_upgrade",
        "_announced",
        "_body_bytes",
        "_chunks",
        "_head_bytes",
        "_headers",
        "_interim",
        "_is_bodiless",
        "_is_chunked_request",
        "_is_ended",
        "_is_head_reported",
        "_is_head_request",
        "_is_paused",
        "_is_request_complete",
        "_is_resting",
        "_is_reusable",
        "_is_reused",
        "_is_safe_request",
        "_is_silent",
        "_left",
        "_loop",
        "_owner",
        "_partial",
        "_parts",
        "_reports_interim",
        "_request_bytes",
        "_status",
        "_take_chunk",
        "_unread",
        "idle_s",
        "idle_since",
        "is_lost",
        "is_writing_paused",
        "response_stream",
        "trailers",
    )

    def __init__(self, owner: ConnectionOwner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._owner = owner
        self._loop = loop
        self._parts: list[bytes] = []
        self._headers: Headers = []
        self._interim: list[ResponseHead] = []
        self._partial: PartialHead | None = None
        self._is_paused = False
        self._is_resting = False
        self._is_reusable = True
        self._is_reused = False
        self._request_bytes = 0
        self._unread = b""
        self.response_stream: ResponseStream | None = None
        self.idle_since = 0.0
        self.idle_s = inf
        self.is_writing_paused = False
        self.is_lost = False
        self.trailers = NO_TRAILERS
        self._reset()

    def _reset(self) -> None:
        self._headers = []
        self._status = 0
        self._announced: int | None = None
        self._chunks: ChunkedBody | None = None
        self._take_chunk: TakeChunk | None = None
        self._body_bytes = 0
        self._head_bytes = 0
        self._left = 0
        self._is_bodiless = False
        self._is_ended = False
        self._is_head_reported = False
        self._is_silent = True

    def __repr__(self) -> str:
        state = "lost" if self.is_lost else "idle" if self.response_stream is None else "busy"
        return f"<{type(self).__name__} {state}, status {self._status}>"

    # Called by the user of the connection

    def start(  # noqa: PLR0913 - what the head means to the client
        self,
        response_stream: ResponseStream,
        head: bytes,
        body: bytes,
        *,
        is_chunked: bool = False,
        is_complete: bool = True,
        accepts_upgrade: bool = False,
        is_head: bool = False,
        is_safe: bool = False,
        reports_interim: bool = False,
    ) -> Self:
        """Send a request, and return its writer; ``head`` includes its blank line.

        ``body`` is the first part of the body, without transfer coding. Unless ``is_complete``, the
        rest follows by `send_data` and `send_end`. ``is_head``: the method is HEAD; ``is_safe``: it
        may be repeated whatever the server received (RFC 9110 §9.2.1). ``reports_interim``: report
        interim responses too. ``accepts_upgrade``: the request asks for another protocol. A
        response of status 101 is reported then, with what follows as its body, until the server's
        end; `send_data` sends bytes as they are, and `send_end` the end of this side.
        """
        self.response_stream = response_stream
        self._is_head_request = is_head
        self._is_safe_request = is_safe
        self._reports_interim = reports_interim
        self._accepts_upgrade = accepts_upgrade
        self.trailers = NO_TRAILERS
        self._is_chunked_request = is_chunked
        self._is_request_complete = is_complete
        if is_chunked:
            body = (encode_chunk(body) if body else b"") + (LAST_CHUNK if is_complete else b"")
        self._request_bytes = len(head) + len(body)
        if len(body) <= _COPIED_BYTES:
            self._transport.write(head + body if body else head)
        else:
            self._transport.writelines((head, body))
        return self

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the request's body."""
        if self.is_lost or not data:
            return
        if not self._is_chunked_request:
            self._transport.write(data)
        elif len(data) <= _COPIED_BYTES:
            self._transport.write(encode_chunk(data))
        else:
            self._transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Send the next ``size`` bytes of the request's body, which are one chunk."""
        if not self._is_chunked_request:
            self.send_data(chunk_data(chunk, size))
        elif not self.is_lost:
            self._transport.write(chunk)

    def send_end(self, trailers: Headers = NO_TRAILERS) -> None:
        """Complete the request; ``trailers`` end a chunked one."""
        self._is_request_complete = True
        if self._is_chunked_request and not self.is_lost:
            self._transport.write(encode_last_chunk(trailers) if trailers else LAST_CHUNK)
        elif self._status == _SWITCHING and not self._transport.is_closing():
            self._transport.write_eof()

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """Report each read of the rest that is exactly one chunk to ``take_chunk``, as it is."""
        self._take_chunk = take_chunk

    def pause_reading(self) -> None:
        """Stop reading the response."""
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading the response."""
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            if self._unread:
                self._rest()
            elif not self._is_resting:
                self._transport.resume_reading()

    def release(self) -> None:
        """Let others have the connection, which has carried no request."""
        self._owner.released(self)

    def has_response_begun(self) -> bool:
        """Whether any byte of the current response has arrived."""
        return not self._is_silent

    @property
    def is_unanswered(self) -> bool:
        """Whether it has been idle, and carries a request to which no byte of a response came."""
        return self._is_reused and self._is_silent and self.response_stream is not None

    def use_once(self) -> None:
        """Do not use the connection again after its current request."""
        self._is_reusable = False

    def is_usable(self) -> bool:
        """Whether a request may be sent: as far as is known, the peer has not closed."""
        return not self._transport.is_closing()

    def has_peer_closed(self) -> bool:
        """Whether the peer's FIN has arrived, although the loop may not have read it yet."""
        connected = self._transport.get_extra_info("socket")
        try:
            return connected is not None and has_sent_fin(connected)
        except OSError:
            return True

    def discard(self, response_stream: ResponseStream) -> None:
        """Send no more, and report what is still to come of the response to ``response_stream``.

        The server sees the end of its input, and most servers stop at that. The connection is not
        used again.
        """
        self.response_stream = response_stream
        self._take_chunk = None
        self._is_request_complete = False
        if not self._transport.is_closing():
            self.resume_reading()
            self._transport.write_eof()

    def close(self) -> None:
        """Close at once; the response stream is not called again."""
        self.response_stream = None
        self._transport.abort()

    def reset(self) -> None:
        """Close so that the server's next write fails; the response stream is not called again."""
        self.response_stream = None
        connected = self._transport.get_extra_info("socket")
        if connected is not None and not self._transport.is_closing():
            reset_on_close(connected)
        self._transport.abort()

    def close_after_writing(self) -> None:
        """Close after sending what was written; the response stream is not called again."""
        self.response_stream = None
        self._transport.close()

    def end(self) -> None:
        """Close after sending what was written, or reset if the server does not read it."""
        if self.is_writing_paused:
            self.reset()
        else:
            self.close_after_writing()

    def break_off(self) -> None:
        """End as if the peer had sent a reset."""
        self._break(Failure.RESET)

    def report_delayed(self) -> None:
        """Report the head and what has arrived of a small body, if it is still incomplete."""
        if self.response_stream is not None and self._status and not self._is_head_reported:
            self._report_head(self.response_stream, self._take())

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        response_stream = self.response_stream
        if response_stream is None:
            # A response to no request: it cannot be assigned to one (RFC 9112 §9.2).
            self._transport.abort()
            return
        take_chunk, chunks = self._take_chunk, self._chunks
        if take_chunk is not None and chunks is not None and not self._unread:
            size = chunks.whole(data)
            if size:
                take_chunk(data, size)
                return
        if self._left:
            self._report_sized(response_stream, data)
            return
        if not self._status and self._report_known(response_stream, data):
            return
        self._is_silent = False
        if len(data) > LONG_READ_BYTES:
            self._rest()
        self._read(response_stream, data)

    def _report_known(self, response_stream: ResponseStream, data: bytes) -> bool:
        """Report ``data`` if it is what most small responses are: one whole, with a known head."""
        end = data.find(b"\r\n\r\n")
        head = known_head(data[:end]) if end > 0 and self._is_silent else None
        if head is None or self._is_head_request or not head.body_bytes:
            return False
        status, body_at = head.status, end + 4
        is_whole = len(data) == body_at + head.body_bytes
        if not is_whole or status in BODILESS_STATUSES or status < 200:
            return False
        self.idle_s = head.idle_s
        self._is_reusable = self._is_reusable and head.is_persistent
        self._give_back()
        response_stream.response_whole(status, head.headers, head.body_bytes, data[body_at:])
        return True

    def _read(self, response_stream: ResponseStream, data: bytes) -> None:
        try:
            if not self._status:
                data = self._read_heads(data)
                if self._interim:
                    self._report_interim(response_stream)
                    if self.response_stream is None:
                        return
                    response_stream = self.response_stream
                if not self._status:
                    return
            if data or self._unread:
                self._read_body(data)
        except DefectError as error:
            # What the same read brought before the error cannot be trusted either.
            self._break(Failure.INVALID, error.defect, data)
            return
        self._report(response_stream)

    def _rest(self) -> None:
        """Read on in the next turn of the loop."""
        if not self._is_resting and not self._transport.is_closing():
            self._is_resting = True
            if not self._is_paused:
                self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._is_resting = False
        if self._is_paused or self._transport.is_closing():
            return
        response_stream = self.response_stream
        if self._unread and response_stream is not None:
            self._read(response_stream, b"")
        if not self._is_resting and not self._is_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        response_stream = self.response_stream
        is_unframed = self._announced is None and self._chunks is None
        if response_stream is not None and self._status and is_unframed:
            # RFC 9112 §6.3, rule 8: the end of the connection is the end of the body.
            self._is_ended = True
            self._is_reusable = False
            self._report(response_stream)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._owner.lost(self)
        is_unanswered = self.is_unanswered
        response_stream, self.response_stream = self.response_stream, None
        if response_stream is not None:
            is_stale = is_unanswered and (self._is_safe_request or self._has_sent_nothing(exc))
            failure = Failure.CLOSED if exc is None else Failure.RESET
            response_stream.response_broken(failure, is_stale=is_stale)

    def pause_writing(self) -> None:
        self.is_writing_paused = True
        if self.response_stream is not None:
            self.response_stream.pause_writing()

    def resume_writing(self) -> None:
        self.is_writing_paused = False
        if self.response_stream is not None:
            self.response_stream.resume_writing()

    def _has_sent_nothing(self, exc: Exception | None) -> bool:
        """Whether the server cannot have received any byte of the request."""
        is_orderly = exc is None or isinstance(exc, BrokenPipeError)
        return is_orderly and unconfirmed_bytes(self._transport) >= self._request_bytes

    # From bytes to a response

    def _read_heads(self, data: bytes) -> bytes:
        """Read interim heads and the final one, if it is complete; return what follows it.

        Raises `DefectError`.
        """
        at = 0
        while True:
            end = -1
            if self._partial is None:
                end = data.find(b"\r\n\r\n", at)
            if end < 0:
                whole = self._hold(data[at:] if at else data)
                if whole is None:
                    return b""
                data, at = whole, 0
                continue
            if end == at:
                self._count_head(MIN_INTERIM_BYTES)
                at += 2
                continue
            head = read_head(data[at:end])
            start, at = at, end + 4
            if head.status >= 200:
                self._take_head(head)
                return data[at:]
            if head.status == _SWITCHING:
                if self._accepts_upgrade:
                    self._status, self._headers = _SWITCHING, head.headers
                    self._is_reusable = False
                    return data[at:]
                raise DefectError("upgrade", "The server changes the protocol unasked")
            self._count_head(max(at - start, MIN_INTERIM_BYTES))
            if self._reports_interim and head.status != 100:
                self._interim.append(head)

    def _hold(self, data: bytes) -> bytes | None:
        """Keep a part of a head; return all of it once it is complete."""
        if not data:
            return None
        partial = self._partial
        if partial is None:
            partial = self._partial = PartialHead()
        whole = partial.add(data)
        if whole is None:
            self._count_head(len(data))
        else:
            self._partial = None
        return whole

    def _count_head(self, head_bytes: int) -> None:
        self._head_bytes += head_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            raise DefectError("too_large", "The head is larger than 417,792 bytes")

    def _take_head(self, head: ResponseHead) -> None:
        status, self._headers, announced, is_chunked, is_persistent, self.idle_s = head
        self._status = status
        self._announced = announced
        self._is_reusable = self._is_reusable and is_persistent
        if self._is_head_request or status in BODILESS_STATUSES:
            # RFC 9112 §6.3, rule 1.
            self._is_bodiless = self._is_ended = True
        elif is_chunked:
            self._chunks = ChunkedBody(is_forgiving=True)
        elif announced == 0:
            self._is_ended = True

    def _read_body(self, data: bytes) -> None:
        """Take the next bytes of a body whose head was not reported, or that is chunked.

        Raises `DefectError`.
        """
        if self._is_ended:
            self._is_reusable = False
        elif self._chunks is not None:
            self._read_chunks(self._chunks, data)
        else:
            announced = self._announced
            self._body_bytes += len(data)
            if announced is not None and self._body_bytes >= announced:
                self._is_ended = True
                if self._body_bytes > announced:
                    self._is_reusable = False
                    data = data[: announced - self._body_bytes]
            self._parts.append(data)

    def _read_chunks(self, chunks: ChunkedBody, data: bytes) -> None:
        if self._unread:
            data, self._unread = self._unread + data, b""
        end = len(data)
        try:
            decoded, at = chunks.take(data, 0, end)
        except BodyError as error:
            raise DefectError("chunk", str(error)) from error
        if decoded:
            self._parts.append(decoded)
        if chunks.is_complete:
            self._is_ended = True
            self.trailers = chunks.trailers
            if at < end or chunks.is_flawed:
                self._is_reusable = False
        elif at < end:
            # So many small chunks that the rest waits for the next turn.
            self._unread = data[at:]
            self._rest()

    # Reports to the response stream

    def _report_interim(self, response_stream: ResponseStream) -> None:
        heads, self._interim = self._interim, []
        for head in heads:
            # The response stream may have closed the connection, or discarded the response.
            if self.response_stream is response_stream:
                response_stream.response_interim(head.status, head.headers)

    def _report(self, response_stream: ResponseStream) -> None:
        announced = self._announced
        if self._is_ended:
            data = self._take()
            if self._is_head_reported:
                self._report_end(response_stream, data)
                return
            status, headers = self._status, self._headers
            length = announced if self._is_bodiless else len(data)
            self._release()
            response_stream.response_whole(status, headers, length, data)
        elif self._is_head_reported:
            if self._parts:
                response_stream.response_data(self._take())
        elif announced is not None and announced <= SMALL_BODY_BYTES:
            self._owner.delay_small_body(self)
        else:
            self._report_head(response_stream, self._take())

    def _report_head(self, response_stream: ResponseStream, data: bytes) -> None:
        """Report the head and the first ``data`` of a response whose body is not complete."""
        self._is_head_reported = True
        announced = self._announced
        if announced is not None:
            self._left = announced - self._body_bytes
        response_stream.response_head(self._status, self._headers, announced)
        if data:
            response_stream.response_data(data)

    def _take(self) -> bytes:
        parts = self._parts
        if not parts:
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return data

    def _report_sized(self, response_stream: ResponseStream, data: bytes) -> None:
        """Report the next bytes of a body of known length without parsing them."""
        left = self._left - len(data)
        if left > 0:
            self._left = left
            response_stream.response_data(data)
            return
        if left < 0:
            data = data[:left]
            self._is_reusable = False
        self._report_end(response_stream, data)

    def _report_end(self, response_stream: ResponseStream, data: bytes) -> None:
        if data:
            response_stream.response_data(data)
            # The response stream may have closed the connection, or discarded the response.
            if self.response_stream is None:
                return
            response_stream = self.response_stream
        self._release()
        response_stream.response_end()

    def _release(self) -> None:
        """Forget the response, which is complete, and give the connection back."""
        self._reset()
        self._give_back()

    def _give_back(self) -> None:
        """Give the connection back to its owner, or close it."""
        self.response_stream = None
        if self._is_reusable and self._is_request_complete and not self._transport.is_closing():
            self._is_reused = True
            self.idle_since = self._loop.time()
            if self._is_paused:
                self.resume_reading()
            self._owner.released(self)
        else:
            self._transport.abort()

    def _break(self, failure: Failure, defect: Defect | None = None, refused: bytes = b"") -> None:
        """Close the connection because of what the server sent, unless the rest is discarded.

        ``refused`` is the read with the defect.
        """
        response_stream = self._take_stream()
        if response_stream is not None:
            response_stream.response_broken(failure, is_stale=False, defect=defect)
        if self._is_expecting() and not seems_complete(refused):
            # The former stream has discarded the rest, which cannot be parsed.
            self._left, self._unread = _UNPARSED_BYTES, b""
            return
        discarding = self._take_stream()
        self._transport.abort()
        if discarding is not None:
            discarding.response_end()

    def _take_stream(self) -> ResponseStream | None:
        response_stream, self.response_stream = self.response_stream, None
        return response_stream

    def _is_expecting(self) -> bool:
        return self.response_stream is not None
