"""Failures as the problem documents that callers get (``docs/wire.md`` §7.3).

The document's source says whose fault it is, because callers branch on it. Every status is 500, as
that of NVCF's workers.
"""

from typing import NamedTuple

from http1.stream import Failure
from wire.http1 import encode_response_head
from wire.problem import PROBLEM_JSON, problem

PROBLEM_STATUS = 500
_KIND = "internal-server-error"


class Fault(NamedTuple):
    """Who failed (``urn:<source>:…``), and the detail for callers.

    ``word`` tells the gateway what failed (``docs/wire.md`` §5.3).
    """

    source: str
    detail: str
    word: bytes


CONNECTION = Fault(
    "inference-connection",
    "Inference connection error while making inference request",
    b"inference-lost",
)
INTERNAL = Fault("nvcf-worker-service", "Internal error while making inference request", b"worker")
CLOSED = INTERNAL._replace(word=b"inference-lost")
SERVICE = Fault(
    "inference-service", "The inference server's response is not valid HTTP", b"inference-invalid"
)

_FAULTS = {
    Failure.UNREACHABLE: CONNECTION,
    Failure.RESET: CONNECTION,
    Failure.CLOSED: CLOSED,
    Failure.INVALID: SERVICE,
}


def fault_of(failure: Failure) -> Fault:
    """Return who is at fault when an exchange with the inference server fails."""
    return _FAULTS[failure]


def problem_response(fault: Fault, request_id: str) -> bytes:
    """Return a whole HTTP/1.1 response with the problem document of ``fault``."""
    body = problem(PROBLEM_STATUS, _KIND, fault.detail, request_id=request_id, source=fault.source)
    head = encode_response_head(
        PROBLEM_STATUS, [(b"content-type", PROBLEM_JSON)], b"content-length: %d\r\n" % len(body)
    )
    return head + body
