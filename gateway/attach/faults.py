"""What a worker's own problem documents say of the function (`docs/wire.md` §7.3).

A worker that has no response of its inference server delivers a problem document in its place. The
client gets it as it is; the invocation's outcome tells it from a response of the function. The
project's agent says what failed in a header of its POST. NVCF's worker does not, and is known by
the document; a function that passes on such a document as its own response looks the same.
"""

from gateway.invocation.states import Outcome
from http1.stream import Headers
from wire.headers import CONTENT_TYPE
from wire.problem import PROBLEM_JSON

PROBLEM_STATUS = 500
FAULTS = {
    b"inference-lost": Outcome.INFERENCE_LOST,
    b"inference-invalid": Outcome.INFERENCE_INVALID,
    b"worker": Outcome.WORKER_FAILED,
    b"run-timeout": Outcome.RUN_TIMEOUT,
}
"""Outcomes by the value of `wire.headers.NVCF_FAULT`."""
_SOURCES = (
    (b'{"type":"urn:inference-connection:', Outcome.INFERENCE_LOST),
    (b'{"type":"urn:inference-service:', Outcome.INFERENCE_INVALID),
    (b'{"type":"urn:nvcf-worker-service:', Outcome.WORKER_FAILED),
)
_READ_BYTES = 64


def outcome_of_document(headers: Headers, beginning: bytes) -> Outcome:
    """Return the outcome of a response with status `PROBLEM_STATUS`, whose body begins so."""
    for name, value in headers:
        if name == CONTENT_TYPE and value.startswith(PROBLEM_JSON):
            start = bytes(beginning[:_READ_BYTES]).translate(None, b" \t\r\n")
            for source, outcome in _SOURCES:
                if start.startswith(source):
                    return outcome
    return Outcome.ANSWERED
