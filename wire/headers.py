"""Names of the headers that the programs interpret, and which headers are forwarded.

Header names are lower case inside both programs: the parsers convert them.
"""

from functools import lru_cache

CONTENT_TYPE = b"content-type"
CONTENT_LENGTH = b"content-length"
AUTHORIZATION = b"authorization"
TRACEPARENT = b"traceparent"
ORIGIN = b"origin"
ACCESS_CONTROL_EXPOSE_HEADERS = b"access-control-expose-headers"

FUNCTION_ID = b"function-id"
FUNCTION_VERSION_ID = b"function-version-id"

NVCF_REQID = b"nvcf-reqid"
X_REQUEST_ID = b"x-request-id"
NVCF_STATUS = b"nvcf-status"
NVCF_POLL_SECONDS = b"nvcf-poll-seconds"
NVCF_QUEUE_POSITION = b"nvcf-queue-position"
NVCF_INVOCATION_REGION = b"nvcf-invocation-region"
NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY = b"nvcf-feature-disable-worker-compatibility"
NVCF_ALLOW_RERUN = b"nvcf-allow-rerun"
"""In the envelope, ``false``: a method that is not idempotent must not be run a second time."""
NVCF_LEASED_US = b"nvcf-leased-us"
"""On the worker's attach POST: the age of its lease in microseconds."""
NVCF_INSTANCE_ID = b"nvcf-instance-id"
"""On the same: the instance that responds."""
NVCF_FAULT = b"nvcf-fault"
"""On the same, with a problem document of the worker: what failed (`docs/wire.md` §5.3)."""

NVCF_DELIVERIES = b"nvcf-deliveries"
"""On the worker's question whether to run a request: how often it has been delivered."""
NVCF_RUNNING = b"nvcf-running"
"""On the same: the worker runs the request already."""
NVCF_LATE = b"nvcf-late"
"""In place of the question: the worker does not start the request, because it would be late."""

EXPOSED_HEADERS = (NVCF_REQID, NVCF_STATUS, NVCF_QUEUE_POSITION, b"x-request-id", b"retry-after")
"""Response headers of the gateway's own that web pages may read (``docs/wire.md`` §1.4)."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"proxy-connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers of one connection, never forwarded: RFC 9110 §7.6.1 and RFC 2616 §13.5.1
(`docs/wire.md` §3.1)."""

INVOCATION_DROPS = frozenset(
    {
        AUTHORIZATION,
        b"expect",
        NVCF_INVOCATION_REGION,
        NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY,
        NVCF_ALLOW_RERUN,
    }
)
"""Request headers that are never put into the envelope, in addition to `HOP_BY_HOP`.

``authorization`` is the caller's credential, which the function must not see. ``expect`` is handled
by the gateway, and the inference server must not respond to it again. The ``nvcf-`` headers are set
by the gateway, which replaces a client's value. All other headers are forwarded in order,
including ``host``, which the worker drops, and ``content-length``, from which the worker takes the
length of the body.
"""

_WITHOUT_NAMES = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


def forwardable(
    headers: list[tuple[bytes, bytes]], also: frozenset[bytes] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """Return the headers to forward: all but hop-by-hop, those named in Connection, and ``also``.

    Order and duplicates are kept. The result is a new list, which the caller may change.
    """
    drops = _hop_by_hop_and(also) if also else HOP_BY_HOP
    kept = []
    for header in headers:
        name = header[0]
        if name not in drops:
            kept.append(header)
        elif name == b"connection" and header[1] not in _WITHOUT_NAMES:
            return _drop_named(headers, drops)
    return kept


@lru_cache(maxsize=16)
def _hop_by_hop_and(also: frozenset[bytes]) -> frozenset[bytes]:
    return HOP_BY_HOP | also


def connection_names(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Return the options of all Connection headers, lower case (RFC 9110 §7.6.1)."""
    return {
        option.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }


def _drop_named(
    headers: list[tuple[bytes, bytes]], drops: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    drops = drops | connection_names(headers)
    return [header for header in headers if header[0] not in drops]
