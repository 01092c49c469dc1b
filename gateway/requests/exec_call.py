"""A call whose body is an envelope of NVCF's ``exec``: read as a whole, then called without it."""

from collections.abc import Callable
from copy import copy

from gateway.errors import BodyTooLarge, GatewayError, TooManyBodies
from gateway.requests.exec_body import MAX_REQUEST_BYTES, ExecRequest, decode_request
from http1.held_request import HeldRequest, in_steps
from http1.stream import Request, RequestStream
from wire.headers import CONTENT_LENGTH, CONTENT_TYPE, NVCF_INPUT_ASSET_REFERENCES

MAX_HELD_BYTES = 67_108_864
"""Bytes that all calls of a process hold while their envelopes are not complete."""
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


class ExecCall(HeldRequest):
    """A `http1.stream.RequestStream`: first the envelope, then the call's own."""

    __slots__ = ("_begin", "_envelope", "_held", "_refuse", "_request")

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
        super().__init__(left)
        self._request = request
        self._held = held
        self._begin = begin
        self._refuse = refuse
        self._envelope = bytearray()

    def _hold(self, data: bytes) -> None:
        self._envelope += data
        self._held.count += len(data)
        if len(self._envelope) > MAX_REQUEST_BYTES:
            self._fail(BodyTooLarge.above(MAX_REQUEST_BYTES))
        elif self._held.count > MAX_HELD_BYTES:
            self._fail(TooManyBodies())

    def _completed(self) -> None:
        """The envelope is complete: begin the call."""
        try:
            inner = decode_request(self._drop())
            stream = self._begin(inner_request(self._request, inner), inner)
        except GatewayError as error:
            self._fail(error)
            return
        self._pass_on(stream, in_steps(inner.body))

    def _fail(self, error: GatewayError) -> None:
        self._give_up()
        self._refuse(error)

    def _drop(self) -> bytes:
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
