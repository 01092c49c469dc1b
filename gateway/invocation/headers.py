"""The headers that the gateway drops and adds on the way to the worker and back to the client."""

from http1.stream import EncodedHead, Headers, Request
from wire.envelope import encode_headers
from wire.headers import (
    ACCESS_CONTROL_EXPOSE_HEADERS,
    CONTENT_TYPE,
    EXPOSED_HEADERS,
    INVOCATION_DROPS,
    LOCATIONS,
    NVCF_ALLOW_RERUN,
    NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY,
    NVCF_INPUT_ASSET_REFERENCES,
    NVCF_INVOCATION_REGION,
    NVCF_PASS_INTERIM,
    NVCF_POLL_SECONDS,
    NVCF_POLLED,
    NVCF_REQID,
    NVCF_RUN_SECONDS,
    NVCF_STATUS,
    NVCF_UPGRADED,
    ONCE,
    TRACEPARENT,
    X_ACCEL_BUFFERING,
    X_REQUEST_ID,
    forwardable,
)
from wire.http1 import InnerHead, encode_lines
from wire.locations import outer_location
from wire.source import Source

_PLATFORM_HEADERS = frozenset({NVCF_REQID, NVCF_STATUS, NVCF_UPGRADED})
_PASS_THROUGH = (NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY, b"true")
_NOT_POLLED = (NVCF_POLLED, b"false")
_NO_RERUN = (NVCF_ALLOW_RERUN, b"false")
NEVER_AGAIN = encode_headers([(NVCF_ALLOW_RERUN, b"never")])
"""Field of an envelope: the request was sent to an inference server before it was published."""
RUN_ONCE = encode_headers([ONCE])
"""Last field of an envelope: no worker runs the request before its gateway says so."""
_PASS_INTERIM = (NVCF_PASS_INTERIM, b"true")
_UNBUFFERED = (X_ACCEL_BUFFERING, b"no")
_TEXT = (b"t", b"T")
"""How the content type of an event stream begins, and hardly any other but texts'."""
_READ = LOCATIONS | {CONTENT_TYPE}
_EXPOSED = (ACCESS_CONTROL_EXPOSE_HEADERS, b", ".join(EXPOSED_HEADERS))


def request_headers(
    headers: Headers, region: bytes, *, allows_rerun: bool, passes_interim: bool
) -> Headers:
    """Return the headers for the envelope (`docs/wire.md` §3.1), but those of `source_headers`.

    ``allows_rerun`` and ``passes_interim`` are the version's
    (`gateway.domain.model.FunctionVersion`).

    The worker drops more of them before the inference server: `worker_agent.job.request`.
    """
    kept = forwardable(headers, INVOCATION_DROPS)
    kept.append((NVCF_INVOCATION_REGION, region))
    kept.append(_PASS_THROUGH)
    kept.append(_NOT_POLLED)
    if not allows_rerun:
        kept.append(_NO_RERUN)
    if passes_interim:
        kept.append(_PASS_INTERIM)
    return kept


def polled_headers(
    headers: Headers,
    region: bytes,
    poll_s: int,
    *,
    allows_rerun: bool,
    run_s: int | None = None,
) -> Headers:
    """Return the headers for the envelope of a call over NVCF's polling routes.

    Unlike `request_headers`, the worker is not told to pass the response as it is, unless the
    client itself says so, and the window is ``poll_s``. ``run_s`` is for how long the call may run.
    """
    drops = INVOCATION_DROPS | {NVCF_POLL_SECONDS, NVCF_INPUT_ASSET_REFERENCES}
    kept = forwardable(headers, drops)
    kept.append((NVCF_INVOCATION_REGION, region))
    kept.append((NVCF_POLL_SECONDS, b"%d" % poll_s))
    if _PASS_THROUGH in headers:
        kept.append(_PASS_THROUGH)
    if not allows_rerun:
        kept.append(_NO_RERUN)
    if run_s is not None:
        kept.append((NVCF_RUN_SECONDS, b"%d" % run_s))
    return kept


def correlation_of(request: Request) -> tuple[bytes, bytes]:
    """Return the values of ``traceparent`` and of the caller's ``x-request-id``; empty: absent."""
    get = request.values.get
    trace = get(TRACEPARENT, b"")
    return trace if trace.isascii() else b"", get(X_REQUEST_ID, b"")


def source_headers(source: Source) -> bytes:
    """Return the headers that tell the inference server about the client, encoded once."""
    if not source.encoded:
        source.encoded = encode_headers(list(source.headers)) + source.fields
    return source.encoded


def outer_headers(headers: Headers, source: Source, inner_port: int) -> Headers:
    """Return a worker's response headers as the outside has to see them.

    Locations that name the inference server, at ``inner_port``, name what the client called
    (`docs/wire.md` §3.7); an event stream tells nginx not to buffer it.
    """
    for name, value in headers:
        if name in _READ and (name != CONTENT_TYPE or value.startswith(_TEXT)):
            break
    else:
        return headers
    url, prefix = source.url, source.prefix
    changed = [
        (name, outer_location(value, inner_port, b"", url, prefix) if name in LOCATIONS else value)
        for name, value in headers
    ]
    values = dict(headers)
    kind = values.get(CONTENT_TYPE, b"").lower()
    if kind.startswith(b"text/event-stream") and X_ACCEL_BUFFERING not in values:
        changed.append(_UNBUFFERED)
    return changed


def with_platform_headers(headers: Headers, status: int, request_id: str) -> Headers:
    """Return a worker's response headers as the client gets them (`docs/wire.md` §6.1).

    A function's own ``x-request-id`` is kept: its logs have that one.
    """
    kept = [header for header in headers if header[0] not in _PLATFORM_HEADERS]
    value = request_id.encode()
    for header in kept:
        if header[0] == X_REQUEST_ID:
            break
    else:
        kept.append((X_REQUEST_ID, value))
    kept.append((NVCF_REQID, value))
    kept.append((NVCF_STATUS, nvcf_status(status)))
    kept.append(_EXPOSED)
    return kept


def encoded_head(head: InnerHead) -> EncodedHead | None:
    """Return a worker's response head as each client gets it, but for the lines of `id_lines`.

    ``None`` if it differs from one client to another: see `outer_headers`.
    """
    values = dict(head.headers)
    if not LOCATIONS.isdisjoint(values):
        return None
    if values.get(CONTENT_TYPE, b"").lower().startswith(b"text/event-stream"):
        return None
    kept = [header for header in head.headers if header[0] not in _PLATFORM_HEADERS]
    kept.append((NVCF_STATUS, nvcf_status(head.status)))
    kept.append(_EXPOSED)
    return EncodedHead(head.status, kept, encode_lines(kept))


def id_lines(head: EncodedHead, request_id: str) -> bytes:
    """Return the header lines with the request id; a function's own ``x-request-id`` is kept."""
    value = request_id.encode()
    for name, _ in head.headers:
        if name == X_REQUEST_ID:
            return b"nvcf-reqid: %b\r\n" % value
    return b"x-request-id: %b\r\nnvcf-reqid: %b\r\n" % (value, value)


def nvcf_status(status: int) -> bytes:
    """Return the value of ``nvcf-status`` (`docs/wire.md` §6.1)."""
    if status == 202:
        return b"in-progress"
    return b"fulfilled" if 200 <= status < 400 else b"errored"
