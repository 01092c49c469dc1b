"""How the response of the inference server is passed on (``docs/wire.md`` §8.8).

NVCF's polling routes give their clients buffered responses, errors as problem documents and 202
when a response takes longer than they wait. A worker does that for requests which do not ask it
to pass the response as it is.
"""

from enum import IntEnum

from http1.stream import Headers
from wire.grpc import is_grpc
from wire.headers import CONTENT_TYPE, NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY

_ACCEPT = b"accept"
_EVENT_STREAM = b"text/event-stream"


class Mode(IntEnum):
    """What becomes of a response. `FINAL` is 0, and the mode of nearly all requests."""

    FINAL = 0
    """It is passed as it is, whatever its status."""
    PREPARED = 1
    """The same, but assets are fetched first."""
    POLLED = 2
    """It is passed as it is, but after a 202 the client asks again for another one."""
    COMPAT = 3
    """It is buffered and rewritten; a client that has waited long enough gets 202."""


def mode_of(headers: Headers, *, is_polled: bool, has_compat: bool) -> Mode:
    """Return the mode of a request with ``headers``, whose gateway process may send polls."""
    if not is_polled:
        return Mode.PREPARED
    if not has_compat:
        return Mode.POLLED
    for given, value in headers:
        name = given.lower()
        if name == NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY and value.lower() == b"true":
            return Mode.POLLED
        if name == _ACCEPT and _is_event_stream(value):
            return Mode.POLLED
        if name == CONTENT_TYPE and is_grpc(value):
            return Mode.POLLED
    return Mode.COMPAT


def _is_event_stream(accept: bytes) -> bool:
    """Return whether event streams are all that is accepted; parameters do not matter."""
    kind = accept.partition(b";")[0]
    return b"," not in accept and kind.strip(b" \t").lower() == _EVENT_STREAM
