"""The headers that the gateway drops and adds on the way to the worker and back to the client."""

from http1.stream import Headers
from wire.headers import (
    ACCESS_CONTROL_EXPOSE_HEADERS,
    EXPOSED_HEADERS,
    INVOCATION_DROPS,
    NVCF_ALLOW_RERUN,
    NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY,
    NVCF_INVOCATION_REGION,
    NVCF_REQID,
    NVCF_STATUS,
    TRACEPARENT,
    X_REQUEST_ID,
    forwardable,
)

_PLATFORM_HEADERS = frozenset({NVCF_REQID, NVCF_STATUS})
_PASS_THROUGH = (NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY, b"true")
_NO_RERUN = (NVCF_ALLOW_RERUN, b"false")
_EXPOSED = (ACCESS_CONTROL_EXPOSE_HEADERS, b", ".join(EXPOSED_HEADERS))


def request_headers(headers: Headers, region: bytes, *, allows_rerun: bool) -> Headers:
    """Return the headers for the envelope (`docs/wire.md` §3.1).

    ``allows_rerun`` is the version's (`gateway.domain.model.FunctionVersion`).

    The worker drops more of them before the inference server: `worker_agent.job.request`.
    """
    kept = forwardable(headers, INVOCATION_DROPS)
    kept.append((NVCF_INVOCATION_REGION, region))
    kept.append(_PASS_THROUGH)
    if not allows_rerun:
        kept.append(_NO_RERUN)
    return kept


def correlation_of(headers: Headers) -> tuple[bytes, bytes]:
    """Return the values of ``traceparent`` and of the caller's ``x-request-id``; empty: absent."""
    trace = caller_request_id = b""
    for name, value in headers:
        if name == TRACEPARENT:
            trace = value
        elif name == X_REQUEST_ID:
            caller_request_id = value
    return trace, caller_request_id


def with_platform_headers(headers: Headers, status: int, request_id: str) -> Headers:
    """Return a worker's response headers as the client gets them (`docs/wire.md` §6.1)."""
    kept = [header for header in headers if header[0] not in _PLATFORM_HEADERS]
    kept.append((NVCF_REQID, request_id.encode()))
    kept.append((NVCF_STATUS, nvcf_status(status)))
    kept.append(_EXPOSED)
    return kept


def nvcf_status(status: int) -> bytes:
    """Return the value of ``nvcf-status`` (`docs/wire.md` §6.1)."""
    if status == 202:
        return b"in-progress"
    return b"fulfilled" if 200 <= status < 400 else b"errored"
