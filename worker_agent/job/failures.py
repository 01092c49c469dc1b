"""Failures as the problem documents that callers get (``docs/wire.md`` §7.3).

The document's source says whose fault it is, because callers branch on it. Every status is 500, as
that of NVCF's workers.
"""

from typing import NamedTuple

from http1.stream import Failure
from wire.http1 import encode_response_head
from wire.problem import NO_RETRY, PROBLEM_JSON, problem

PROBLEM_STATUS = 500
_KIND = "internal-server-error"


class Fault(NamedTuple):
    """Who failed (``urn:<source>:…``), and the detail for callers."""

    source: str
    detail: str


CONNECTION = Fault(
    "inference-connection", "Inference connection error while making inference request"
)
INTERNAL = Fault("nvcf-worker-service", "Internal error while making inference request")
SERVICE = Fault("inference-service", "The inference server's response is not valid HTTP")

_FAULTS = {
    Failure.UNREACHABLE: CONNECTION,
    Failure.RESET: CONNECTION,
    Failure.CLOSED: INTERNAL,
    Failure.INVALID: SERVICE,
}


def fault_of(failure: Failure) -> Fault:
    """Return who is at fault when an exchange with the inference server fails."""
    return _FAULTS[failure]


def problem_response(fault: Fault, request_id: str) -> bytes:
    """Return a whole HTTP/1.1 response with the problem document of ``fault``.

    It asks clients not to repeat the call: the function may have run, and was run again as often as
    it may be.
    """
    body = problem(PROBLEM_STATUS, _KIND, fault.detail, request_id=request_id, source=fault.source)
    head = encode_response_head(
        PROBLEM_STATUS,
        [(b"content-type", PROBLEM_JSON), NO_RETRY],
        b"content-length: %d\r\n" % len(body),
    )
    return head + body
