"""Failures as the problem documents that callers get (``docs/wire.md`` §7.3).

The document's source says whose fault it is, because callers branch on it. The status is 500, as
that of NVCF's workers, and 502 if the inference server's response is not valid.
"""

from typing import NamedTuple

from http1.stream import Defect, Failure, Headers
from wire.grpc import DEADLINE_EXCEEDED, UNAVAILABLE, encode_error, error_response
from wire.grpc import INTERNAL as INTERNAL_STATUS
from wire.headers import NVCF_FAULT
from wire.http1 import encode_response_head
from wire.problem import NO_RETRY, PROBLEM_JSON, problem


class Fault(NamedTuple):
    """Who failed (``urn:<source>:…``), the detail for callers, and what else the document says.

    ``word`` tells the gateway what failed (``docs/wire.md`` §5.3).
    """

    source: str
    detail: str
    word: bytes
    status: int = 500
    kind: str = "internal-server-error"
    reason: str = ""


CONNECTION = Fault(
    "inference-connection",
    "Inference connection error while making inference request",
    b"inference-lost",
)
INTERNAL = Fault("nvcf-worker-service", "Internal error while making inference request", b"worker")
CLOSED = INTERNAL._replace(word=b"inference-lost")
PREPARATION = INTERNAL._replace(detail="Internal error while preparing for inference")
"""The folder for the function's own output cannot be made."""
ASSETS = INTERNAL._replace(detail="Internal error while downloading assets")
_SERVICE = Fault(
    "inference-service",
    "The inference server's response is not valid HTTP",
    b"inference-invalid",
    502,
    "bad-gateway",
)

RUN_TIMEOUT = Fault(
    "nvcf",
    "The call has run for as long as it allows",
    b"run-timeout",
    504,
    "run-timeout",
    "run_timeout",
)
"""As the gateway says it, which does not know the lease so exactly (`docs/wire.md` §6.6)."""

RESET_REASON = "reset"
"""Of a `http1.stream.Defect` whose detail says all: the server has reset the stream."""
_FAULTS = {
    Failure.UNREACHABLE: CONNECTION,
    Failure.RESET: CONNECTION,
    Failure.CLOSED: CLOSED,
    Failure.INVALID: _SERVICE,
}


def fault_of(failure: Failure, defect: Defect | None = None) -> Fault:
    """Return who is at fault when an exchange with the inference server fails.

    ``defect`` says what was wrong with an invalid response.
    """
    fault = _FAULTS[failure]
    if defect is None:
        return fault
    if defect.reason == RESET_REASON:
        return fault._replace(detail=defect.detail)
    name = f" ({defect.header})" if defect.header else ""
    return fault._replace(detail=f"{fault.detail}: {defect.detail}{name}")


def grpc_response(fault: Fault) -> bytes:
    """Return a whole HTTP/1.1 response that tells a gRPC client of ``fault``."""
    return error_response(*_grpc_error(fault, "before it responded"))


def grpc_trailers(fault: Fault) -> Headers:
    """Return the trailers that tell a gRPC client of ``fault``, after its response has begun."""
    return [*encode_error(*_grpc_error(fault, "while it responded")), (NVCF_FAULT, fault.word)]


def _grpc_error(fault: Fault, when: str) -> tuple[int, str]:
    if fault.word == CONNECTION.word:
        return UNAVAILABLE, f"The inference server was lost {when}"
    if fault.word == RUN_TIMEOUT.word:
        return DEADLINE_EXCEEDED, fault.detail
    return INTERNAL_STATUS, fault.detail


def problem_response(fault: Fault, request_id: str) -> bytes:
    """Return a whole HTTP/1.1 response with the problem document of ``fault``.

    It asks clients not to repeat the call: the function may have run, and was run again as often as
    it may be.
    """
    body = problem(
        fault.status,
        fault.kind,
        fault.detail,
        request_id=request_id,
        reason=fault.reason,
        source=fault.source,
    )
    head = encode_response_head(
        fault.status,
        [(b"content-type", PROBLEM_JSON), NO_RETRY],
        b"content-length: %d\r\n" % len(body),
    )
    return head + body
