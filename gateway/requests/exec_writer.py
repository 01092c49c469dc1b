"""Wraps the response to a call of NVCF's ``exec`` (`docs/wire.md` §24.4).

Pure. It stands between what writes the response of a function, or the 202 of a call in progress,
and the client's connection.
"""

from enum import Enum

from gateway.invocation.headers import nvcf_status
from gateway.invocation.polled import percent_of
from gateway.requests.exec_body import MAX_RESPONSE_BYTES, encode_response
from http1.stream import (
    NO_TRAILERS,
    EncodedHead,
    Headers,
    ResponseWriter,
    TakeChunk,
)
from wire.headers import CONTENT_TYPE, LOCATION, NVCF_PERCENT_COMPLETE, NVCF_STATUS
from wire.http1 import chunk_data, split_lines

_JSON = (CONTENT_TYPE, b"application/json")
_IN_PROGRESS = 202
"""Its location is the status path of ``pexec``."""
_OF_BODY = frozenset(
    {
        CONTENT_TYPE,
        NVCF_STATUS,
        LOCATION,
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-digest",
        b"content-md5",
        b"digest",
        b"etag",
        b"accept-ranges",
        b"last-modified",
    }
)
"""Response headers that describe the function's body, which the client does not get as it is."""


class PolledForm(Enum):
    """The form in which a client of the polling routes gets responses."""

    PEXEC = b"pexec"
    """As they are."""
    EXEC = b"exec"
    """In an envelope."""
    EXEC_TEXT = b"exec-text"
    """The same, ``as_text`` of `gateway.requests.exec_body.encode_response`."""

    @property
    def is_exec(self) -> bool:
        return self is not PolledForm.PEXEC

    def writer(self, client: ResponseWriter, request_id: str) -> ResponseWriter:
        """Return what writes the response of a call to ``client`` in this form."""
        if self is PolledForm.PEXEC:
            return client
        return ExecWriter(client, request_id, as_text=self is PolledForm.EXEC_TEXT)


class ExecWriter:
    """A `http1.stream.ResponseWriter` that collects one response and sends it in an envelope."""

    __slots__ = ("_as_text", "_body", "_client", "_headers", "_request_id", "_status")

    def __init__(self, client: ResponseWriter, request_id: str, *, as_text: bool) -> None:
        """``as_text`` as for `gateway.requests.exec_body.encode_response`."""
        self._client = client
        self._request_id = request_id
        self._as_text = as_text
        self._status = 0
        self._headers: Headers = []
        self._body: bytearray | None = bytearray()

    def send_interim(self, status: int, headers: Headers) -> None:
        """Drop it: it is the function's."""

    def send_head(
        self,
        status: int,
        headers: Headers,
        body_bytes: int | None,  # noqa: ARG002
    ) -> None:
        """Take the head; it is sent with the body."""
        self._status, self._headers = status, headers

    def send_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers = NO_TRAILERS,  # noqa: ARG002
    ) -> None:
        """Wrap a whole response."""
        self.send_head(head.status, head.headers + split_lines(more_lines), body_bytes)
        self.send_data(body)
        self.send_end()

    def send_data(self, data: bytes) -> None:
        """Take the next bytes of the body; one that is too large is let go."""
        if self._body is not None:
            self._body += data
            if len(self._body) > MAX_RESPONSE_BYTES:
                self._body = None

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Take a chunk of the body."""
        self.send_data(chunk_data(chunk, size))

    def add_trailers(self, trailers: Headers) -> None:
        """Drop them: an envelope has none."""

    def send_end(self) -> None:
        """Send the envelope."""
        headers = self._headers
        body, self._body, self._headers = self._body, None, []
        values = dict(headers)
        status, text = encode_response(
            self._request_id,
            self._status,
            None if body is None else bytes(body),
            location=values.get(LOCATION, b""),
            percent=percent_of(values.get(NVCF_PERCENT_COMPLETE)),
            as_text=self._as_text,
        )
        kept = [header for header in headers if header[0] not in _OF_BODY]
        if LOCATION in values and status == self._status != _IN_PROGRESS:
            # 201, and redirects but 302: with the status, the place it is about.
            kept.append((LOCATION, values[LOCATION]))
        kept += [_JSON, (NVCF_STATUS, nvcf_status(status))]
        self._client.send_head(status, kept, len(text))
        self._client.send_data(text)
        self._client.send_end()

    def abort(self) -> None:
        """The response broke off: nothing was sent of it, so the client is told so."""
        self._status, self._headers = 502, []
        self._body = bytearray()
        self.send_end()

    def open_tunnel(self, headers: Headers) -> None:  # noqa: ARG002
        """Never: a call with an envelope changes no protocol."""
        raise AssertionError("A call of exec opens no tunnel")

    def hand_over(self, headers: Headers, successor: object) -> None:  # noqa: ARG002
        """Never, as above."""
        raise AssertionError("A call of exec hands nothing over")

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """Do nothing: the request's body was taken as a whole."""

    def pause_reading(self) -> None:
        """Do nothing, as above."""

    def resume_reading(self) -> None:
        """Do nothing, as above."""

    def is_writing_paused(self) -> bool:
        """Return False: what is collected has a bound."""
        return False
