"""A call whose body is an envelope of NVCF's ``exec``: read as a whole, then called without it."""

from collections.abc import Callable
from copy import copy

from gateway.errors import BodyTooLarge, GatewayError, TooManyBodies
from gateway.requests.exec_body import MAX_REQUEST_BYTES, ExecRequest, decode_request
from http1.stream import IGNORED, Headers, Request, RequestStream
from wire.headers import CONTENT_LENGTH, CONTENT_TYPE, NVCF_INPUT_ASSET_REFERENCES

MAX_HELD_BYTES = 67_108_864
"""Bytes that all calls of a process hold while their envelopes are not complete."""
_STEP_BYTES = 65_536
_OF_ENVELOPE = frozenset(
    {
        CONTENT_LENGTH,
        CONTENT_TYPE,
        NVCF_INPUT_ASSET_REFERENCES,
        b"accept",
        b"accept-encoding",
        b"content-digest",
        b"content-encoding",
        b"content-md5",
        b"digest",
        b"expect",
    }
)
"""Headers that describe the envelope, and not what the function gets."""
_JSON = b"application/json"

Begin = Callable[[Request, ExecRequest], RequestStream]
"""Begins the call inside an envelope. Raises `GatewayError`."""


class HeldBytes:
    """What all calls of a process hold of incomplete envelopes at this time."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class ExecCall:
    """A `http1.stream.RequestStream`: first the envelope, then the call's own."""

    __slots__ = (
        "_begin",
        "_envelope",
        "_held",
        "_is_paused",
        "_left",
        "_refuse",
        "_request",
        "_stream",
    )

    def __init__(
        self,
        request: Request,
        held: HeldBytes,
        begin: Begin,
        refuse: Callable[[GatewayError], object],
        left: Callable[[], object],
    ) -> None:
        """``refuse`` responds with an error; ``left`` records that the client left before a call.

        Raises `BodyTooLarge` for a body that announces itself as too large.
        """
        if request.body_bytes is not None and request.body_bytes > MAX_REQUEST_BYTES:
            raise BodyTooLarge.above(MAX_REQUEST_BYTES)
        self._request = request
        self._held = held
        self._begin = begin
        self._refuse = refuse
        self._left = left
        self._envelope = bytearray()
        self._stream: RequestStream | None = None
        self._is_paused = False

    def request_data(self, data: bytes) -> None:
        """Take the next bytes of the envelope."""
        if self._stream is not None:
            return
        self._envelope += data
        self._held.count += len(data)
        if len(self._envelope) > MAX_REQUEST_BYTES:
            self._fail(BodyTooLarge.above(MAX_REQUEST_BYTES))
        elif self._held.count > MAX_HELD_BYTES:
            self._fail(TooManyBodies())

    def first_part_end(self) -> None:
        """Wait for the rest."""

    def request_trailers(self, trailers: Headers) -> None:
        """Ignore them."""

    def request_end(self) -> None:
        """The envelope is complete: begin the call."""
        if self._stream is not None:
            return
        try:
            inner = decode_request(self._drop())
            stream = self._begin(inner_request(self._request, inner), inner)
        except GatewayError as error:
            self._fail(error)
            return
        self._stream = stream
        if self._is_paused:
            stream.pause_writing()
        for at in range(0, len(inner.body), _STEP_BYTES):
            stream.request_data(inner.body[at : at + _STEP_BYTES])
        stream.request_end()

    def request_broken(self) -> None:
        """The client left."""
        if self._stream is None:
            self._drop()
            self._stream = IGNORED
            self._left()
        else:
            self._stream.request_broken()

    def pause_writing(self) -> None:
        """Pass it on; without a call nothing is written yet."""
        self._is_paused = True
        if self._stream is not None:
            self._stream.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._is_paused = False
        if self._stream is not None:
            self._stream.resume_writing()

    def _fail(self, error: GatewayError) -> None:
        self._drop()
        self._stream = IGNORED
        self._refuse(error)

    def _drop(self) -> bytes:
        """Hold nothing any more; return what was held."""
        held, self._envelope = bytes(self._envelope), bytearray()
        self._held.count -= len(held)
        return held


def inner_request(request: Request, inner: ExecRequest) -> Request:
    """Return the request for the function that is inside the envelope of ``request``."""
    called = copy(request)
    called.known = None
    called.body_bytes = len(inner.body)
    called.headers = [header for header in request.headers if header[0] not in _OF_ENVELOPE]
    called.headers += [
        (b"accept", _JSON),
        # A compressed body is no text for the envelope of the response.
        (b"accept-encoding", b"identity"),
        (CONTENT_TYPE, _JSON),
        (CONTENT_LENGTH, b"%d" % len(inner.body)),
    ]
    called.values = dict(called.headers)
    return called
