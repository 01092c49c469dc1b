"""One HTTP/1.1 connection as a client, one request at a time (RFC 9112).

Everything that one read brings is reported in one call, so a small response is one event. A body of
known length bypasses the parser once the head is read. A connection is reused only if request and
response were complete and no further bytes came; in any doubtful case it is closed.
"""

import asyncio
from typing import Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from http1.client.watched import WatchedConnection
from http1.peer import reset_on_close, unconfirmed_bytes
from http1.stream import Failure, Headers, ResponseStream
from wire.http1 import BODILESS_STATUSES, LAST_CHUNK, encode_chunk

MAX_HEAD_BYTES = 417_792
"""The most that a gateway accepts of a response's head (`wire.http1.MAX_INNER_HEAD_BYTES`)."""
MAX_HEADERS = 256
SMALL_BODY_BYTES = 16_384
"""A body announced as at most this long is waited for shortly, to report the response whole."""
LONG_READ_BYTES = 131_072
"""After a read of more bytes, the next one waits for the next turn of the loop: uvloop reads up to
32 times in one turn, and each read can bring 40,000 chunks."""
_COPIED_BYTES = 4_096
"""Below this, joining buffers is cheaper than handing the kernel several."""
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


class _UnacceptableError(Exception):
    """A response that parses, but that the client does not accept."""


class ClientConnection(WatchedConnection):
    """A connection to one server, and the `http1.stream.RequestWriter` of its current request.

    ``response_stream`` receives the response. ``idle_since`` is loop time in seconds, valid while
    idle.
    """

    __slots__ = (
        "_announced",
        "_body_bytes",
        "_headers",
        "_is_bodiless",
        "_is_chunked_request",
        "_is_chunked_response",
        "_is_ended",
        "_is_head_reported",
        "_is_head_request",
        "_is_interim",
        "_is_paused",
        "_is_request_complete",
        "_is_reusable",
        "_is_reused",
        "_is_silent",
        "_left",
        "_loop",
        "_owner",
        "_parser",
        "_parts",
        "_read_bytes",
        "_request_bytes",
        "_status",
        "idle_since",
        "is_lost",
        "is_writing_paused",
        "response_stream",
    )

    def __init__(self, owner: ConnectionOwner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._owner = owner
        self._loop = loop
        self._parser = HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._headers: Headers = []
        self._is_paused = False
        self._is_reused = False
        self._request_bytes = 0
        self.response_stream: ResponseStream | None = None
        self.idle_since = 0.0
        self.is_writing_paused = False
        self.is_lost = False
        self._reset()

    def _reset(self) -> None:
        self._headers = []
        self._status = 0
        self._announced: int | None = None
        self._body_bytes = 0
        self._read_bytes = 0
        self._left = 0
        self._is_bodiless = False
        self._is_chunked_response = False
        self._is_ended = False
        self._is_head_reported = False
        self._is_interim = False
        self._is_reusable = True
        self._is_silent = True

    def __repr__(self) -> str:
        state = "lost" if self.is_lost else "idle" if self.response_stream is None else "busy"
        return f"<{type(self).__name__} {state}, status {self._status}>"

    # Called by the user of the connection

    def start(
        self,
        response_stream: ResponseStream,
        head: bytes,
        body: bytes,
        *,
        is_chunked: bool = False,
        is_complete: bool = True,
        is_head: bool = False,
    ) -> None:
        """Send a request; ``head`` includes its blank line.

        ``body`` is the first part of the body, without transfer coding. Unless ``is_complete``, the
        rest follows by `send_data` and `send_end`. ``is_head``: the method is HEAD.
        """
        self.response_stream = response_stream
        self._is_head_request = is_head
        self._is_chunked_request = is_chunked
        self._is_request_complete = is_complete
        if is_chunked:
            body = (encode_chunk(body) if body else b"") + (LAST_CHUNK if is_complete else b"")
        self._request_bytes = len(head) + len(body)
        if len(body) <= _COPIED_BYTES:
            self._transport.write(head + body if body else head)
        else:
            self._transport.writelines((head, body))

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

    def send_end(self) -> None:
        """Complete the request."""
        self._is_request_complete = True
        if self._is_chunked_request and not self.is_lost:
            self._transport.write(LAST_CHUNK)

    def pause_reading(self) -> None:
        """Stop reading the response."""
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading the response."""
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def has_response_begun(self) -> bool:
        """Whether any byte of the current response has arrived."""
        return not self._is_silent

    def use_once(self) -> None:
        """Do not use the connection again after its current request."""
        self._is_reusable = False

    def is_usable(self) -> bool:
        """Whether a request may be sent: as far as is known, the peer has not closed."""
        return not self._transport.is_closing()

    def discard(self, response_stream: ResponseStream) -> None:
        """Send no more, and report what is still to come of the response to ``response_stream``.

        The server sees the end of its input, and most servers stop at that. The connection is not
        used again.
        """
        self.response_stream = response_stream
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
        self._is_silent = False
        if self._left:
            self._report_sized(response_stream, data)
            return
        if len(data) > LONG_READ_BYTES:
            self._rest()
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if not self._is_ended:
                # What the same read brought before the error cannot be trusted either.
                self._break(Failure.INVALID)
                return
            self._is_reusable = False
        if self._status:
            self._report(response_stream)
            return
        self._read_bytes += len(data)
        if self._read_bytes > MAX_HEAD_BYTES:
            self._break(Failure.INVALID)

    def _rest(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        response_stream = self.response_stream
        is_unframed = self._announced is None and not self._is_chunked_response
        if response_stream is not None and self._status and is_unframed:
            # RFC 9112 §6.3, rule 8: the end of the connection is the end of the body.
            self._is_ended = True
            self._is_reusable = False
            self._report(response_stream)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        response_stream, self.response_stream = self.response_stream, None
        self._owner.lost(self)
        if response_stream is not None:
            is_stale = (
                self._is_reused
                and self._is_silent
                and (exc is None or isinstance(exc, BrokenPipeError))
                and unconfirmed_bytes(self._transport) >= self._request_bytes
            )
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

    # httptools

    def on_message_begin(self) -> None:
        if self._is_ended:
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_ended:
            return
        headers = self._headers
        if len(headers) >= MAX_HEADERS:
            raise _UnacceptableError
        name = name.lower()
        if name == b"content-length":
            # The parser has checked that it is one number (RFC 9112 §6.3, rule 5).
            self._announced = int(value)
        else:
            if name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise _UnacceptableError
                self._is_chunked_response = True
            headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_ended:
            return
        status = self._parser.get_status_code()
        if status < 200:
            # 101 was not asked for. Other interim responses are not reported (RFC 9110 §15.2).
            if status == 101:
                raise _UnacceptableError
            self._headers = []
            self._announced = None
            self._is_interim = True
            return
        self._status = status
        if self._is_head_request:
            # The parser does not know the method and would wait for a body (RFC 9112 §6.3, rule 1).
            self._is_bodiless = True
            self._is_ended = True
            if not self._parser.should_keep_alive():
                self._is_reusable = False
        elif status in BODILESS_STATUSES:
            self._is_bodiless = True

    def on_body(self, data: bytes) -> None:
        if self._is_bodiless or self._is_ended:
            self._is_reusable = False
        else:
            self._parts.append(data)
            self._body_bytes += len(data)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
        elif not self._is_ended:
            self._is_ended = True
            if not self._parser.should_keep_alive():
                self._is_reusable = False

    # Reports to the response stream

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
        if not self._parser.should_keep_alive():
            self._is_reusable = False
        self._parser = HttpResponseParser(self)
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
        """Give the connection back to its owner, or close it: the response is complete."""
        self.response_stream = None
        if self._is_reusable and self._is_request_complete and not self._transport.is_closing():
            if self._is_head_request:
                self._parser = HttpResponseParser(self)
            self._reset()
            self._is_reused = True
            self.idle_since = self._loop.time()
            if self._is_paused:
                self.resume_reading()
            self._owner.released(self)
        else:
            self._transport.abort()

    def _break(self, failure: Failure) -> None:
        """Close the connection because of what the server sent, unless the rest is discarded."""
        response_stream, self.response_stream = self.response_stream, None
        if response_stream is not None:
            response_stream.response_broken(failure, is_stale=False)
        if self._is_expecting():
            # The former stream has discarded the rest, which cannot be parsed.
            self._left = _UNPARSED_BYTES
        else:
            self._transport.abort()

    def _is_expecting(self) -> bool:
        return self.response_stream is not None
