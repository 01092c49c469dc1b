"""One HTTP/1.1 connection as a client, one exchange at a time (RFC 9112).

What one read brings is told in one call, so that a small response is one event. Bodies of known
length pass by the parser once the head is read. A connection is used again only when both messages
were complete and nothing else came; whatever is doubtful closes it.
"""

import asyncio
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from http1.client.tcp_info import unconfirmed_bytes
from http1.stream import Failure, Headers, ResponseStream
from wire.http1 import BODILESS_STATUSES, LAST_CHUNK, encode_chunk

MAX_HEAD_BYTES = 417_792
"""As much as a gateway accepts of a response's head (`wire.http1.MAX_INNER_HEAD_BYTES`)."""
MAX_HEADERS = 256
SMALL_BODY_BYTES = 16_384
"""A body announced to be at most this long is waited for shortly, to be told as a whole."""

_COPIED_BYTES = 4_096
"""Below this, joining pieces is cheaper than handing the kernel several."""


class Owner(Protocol):
    """Keeps the connections; told when one needs it."""

    def released(self, connection: "Connection") -> None:
        """Its exchange is complete; it may be used again. Called before the exchange is told so."""

    def lost(self, connection: "Connection") -> None:
        """It is closed."""

    def holds(self, connection: "Connection") -> None:
        """It holds back a head whose small body is not complete; wants `tell_held` soon."""


class _RefusedError(Exception):
    """A response that parses, but that we do not take."""


class Connection(asyncio.Protocol):
    """A connection to one server. ``idle_since`` is loop time in seconds, valid while idle."""

    __slots__ = (
        "_announced",
        "_body_bytes",
        "_headers",
        "_is_bodiless",
        "_is_chunked_request",
        "_is_chunked_response",
        "_is_ended",
        "_is_head_request",
        "_is_head_told",
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
        "_transport",
        "exchange",
        "idle_since",
        "is_lost",
        "is_writing_paused",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser = HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._headers: Headers = []
        self._is_paused = False
        self._is_reused = False
        self._request_bytes = 0
        self.exchange: ResponseStream | None = None
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
        self._is_head_told = False
        self._is_interim = False
        self._is_reusable = True
        self._is_silent = True

    # What the exchange's own side does

    def start(
        self,
        exchange: ResponseStream,
        head: bytes,
        body: bytes,
        *,
        is_chunked: bool = False,
        is_complete: bool = True,
        is_head: bool = False,
    ) -> None:
        """Send a request; ``head`` is complete with its blank line.

        ``body`` are the body's first bytes, without transfer coding. Unless ``is_complete``, the
        rest follows by `send` and `finish`. ``is_head``: the method is HEAD.
        """
        self.exchange = exchange
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
        """The request is complete."""
        self._is_request_complete = True
        if self._is_chunked_request and not self.is_lost:
            self._transport.write(LAST_CHUNK)

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def has_answered(self) -> bool:
        """Whether any byte of the current exchange's response has come."""
        return not self._is_silent

    def is_usable(self) -> bool:
        """Whether a request may be sent: the peer has not closed it, as far as is known."""
        return not self._transport.is_closing()

    def close(self) -> None:
        """Close at once; the exchange is told nothing more."""
        self.exchange = None
        self._transport.abort()

    def close_after_writing(self) -> None:
        """Close when what was sent has left; the exchange is told nothing more."""
        self.exchange = None
        self._transport.close()

    def tell_held(self) -> None:
        """The small body takes its time: tell the head and what there is of it."""
        if self.exchange is not None and self._status and not self._is_head_told:
            self._tell_more(self.exchange, self._take())

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # Bytes that answer nothing: whose answer they are cannot be known (RFC 9112 §9.2).
            self._transport.abort()
            return
        self._is_silent = False
        if self._left:
            self._pass_by(exchange, data)
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if not self._is_ended:
                # What the same read brought before the error is not to be trusted either.
                self._break(Failure.INVALID)
                return
            self._is_reusable = False
        if self._status:
            self._tell(exchange)
            return
        self._read_bytes += len(data)
        if self._read_bytes > MAX_HEAD_BYTES:
            self._break(Failure.INVALID)

    def eof_received(self) -> None:
        exchange = self.exchange
        if (
            exchange is not None
            and self._status
            and self._announced is None
            and not self._is_chunked_response
        ):
            # RFC 9112 §6.3, rule 8: the end of the connection is the end of the body.
            self._is_ended = True
            self._is_reusable = False
            self._tell(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        exchange, self.exchange = self.exchange, None
        self._owner.lost(self)
        if exchange is not None:
            is_stale = (
                self._is_reused
                and self._is_silent
                and (exc is None or isinstance(exc, BrokenPipeError))
                and unconfirmed_bytes(self._transport) >= self._request_bytes
            )
            failure = Failure.CLOSED if exc is None else Failure.RESET
            exchange.response_broken(failure, is_stale=is_stale)

    def pause_writing(self) -> None:
        self.is_writing_paused = True
        if self.exchange is not None:
            self.exchange.pause_writing()

    def resume_writing(self) -> None:
        self.is_writing_paused = False
        if self.exchange is not None:
            self.exchange.resume_writing()

    # httptools

    def on_message_begin(self) -> None:
        if self._is_ended:
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_ended:
            return
        headers = self._headers
        if len(headers) >= MAX_HEADERS:
            raise _RefusedError
        name = name.lower()
        if name == b"content-length":
            # The parser has checked that it is one number (RFC 9112 §6.3, rule 5).
            self._announced = int(value)
        else:
            if name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise _RefusedError
                self._is_chunked_response = True
            headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_ended:
            return
        status = self._parser.get_status_code()
        if status < 200:
            # 101 was never asked for. Other interim responses are for us alone (RFC 9110 §15.2).
            if status == 101:
                raise _RefusedError
            self._headers = []
            self._announced = None
            self._is_interim = True
            return
        self._status = status
        if self._is_head_request:
            # The parser does not know of HEAD and would wait for a body (RFC 9112 §6.3, rule 1).
            self._is_bodiless = True
            self._is_ended = True
            self._is_reusable = self._parser.should_keep_alive()
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

    # Telling

    def _tell(self, exchange: ResponseStream) -> None:
        announced = self._announced
        if self._is_ended:
            data = self._take()
            if self._is_head_told:
                self._tell_last(exchange, data)
                return
            status, headers = self._status, self._headers
            length = announced if self._is_bodiless else len(data)
            self._release()
            exchange.response_whole(status, headers, length, data)
        elif self._is_head_told:
            if self._parts:
                exchange.response_data(self._take())
        elif announced is not None and announced <= SMALL_BODY_BYTES:
            self._owner.holds(self)
        else:
            self._tell_more(exchange, self._take())

    def _tell_more(self, exchange: ResponseStream, data: bytes) -> None:
        """Tell the head of a response whose body is not complete."""
        self._is_head_told = True
        announced = self._announced
        if announced is not None:
            self._left = announced - self._body_bytes
        exchange.response_head(self._status, self._headers, announced)
        if data:
            exchange.response_data(data)

    def _take(self) -> bytes:
        parts = self._parts
        if not parts:
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return data

    def _pass_by(self, exchange: ResponseStream, data: bytes) -> None:
        """Take the next bytes of a body of known length without parsing them."""
        left = self._left - len(data)
        if left > 0:
            self._left = left
            exchange.response_data(data)
            return
        if left < 0:
            data = data[:left]
            self._is_reusable = False
        if not self._parser.should_keep_alive():
            self._is_reusable = False
        self._parser = HttpResponseParser(self)
        self._tell_last(exchange, data)

    def _tell_last(self, exchange: ResponseStream, data: bytes) -> None:
        if data:
            exchange.response_data(data)
            # The exchange may have paused or closed the connection: it is its own up to here.
            if self.exchange is not exchange:
                return
        self._release()
        exchange.response_end()

    def _release(self) -> None:
        """The response is complete: back to the owner, or closed."""
        self.exchange = None
        if self._is_reusable and self._is_request_complete and not self._transport.is_closing():
            if self._is_head_request:
                self._parser = HttpResponseParser(self)
            self._reset()
            self._is_reused = True
            self.idle_since = self._loop.time()
            self.resume_reading()
            self._owner.released(self)
        else:
            self._transport.abort()

    def _break(self, failure: Failure) -> None:
        """Close the connection because of what the server sent."""
        exchange, self.exchange = self.exchange, None
        self._transport.abort()
        if exchange is not None:
            exchange.response_broken(failure, is_stale=False)
