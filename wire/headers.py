"""Header names that have a meaning here, and which headers go on to the next hop.

Names are lower case everywhere inside: the parsers make them so.
"""

from functools import lru_cache

CONTENT_TYPE = b"content-type"
CONTENT_LENGTH = b"content-length"
AUTHORIZATION = b"authorization"
TRACEPARENT = b"traceparent"
ACCESS_CONTROL_EXPOSE_HEADERS = b"access-control-expose-headers"

FUNCTION_ID = b"function-id"
FUNCTION_VERSION_ID = b"function-version-id"

NVCF_REQID = b"nvcf-reqid"
NVCF_STATUS = b"nvcf-status"
NVCF_POLL_SECONDS = b"nvcf-poll-seconds"
NVCF_QUEUE_POSITION = b"nvcf-queue-position"
NVCF_INVOCATION_REGION = b"nvcf-invocation-region"
NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY = b"nvcf-feature-disable-worker-compatibility"
NVCF_LEASED_US = b"nvcf-leased-us"
"""On the worker's attach POST: how long it has held its lease, in microseconds."""

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
"""RFC 9110 §7.6.1 and the names that RFC 2616 §13.5.1 lists (`spec/invocation.md` §3)."""

INVOCATION_DROPS = frozenset(
    {
        AUTHORIZATION,
        b"expect",
        NVCF_INVOCATION_REGION,
        NVCF_FEATURE_DISABLE_WORKER_COMPATIBILITY,
    }
)
"""What of a client's request never goes into the envelope, beside `HOP_BY_HOP`.

``authorization`` is the caller's key and not the function's business; ``expect`` is answered by the
gateway, and the inference server must not answer it again; the two ``nvcf-`` names are the
gateway's to set, a client's own value is replaced. Everything else goes, in order: ``host`` too,
which the worker drops, and ``content-length``, from which the worker takes the body's length.
"""

_WITHOUT_NAMES = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


def forwardable(
    headers: list[tuple[bytes, bytes]], also: frozenset[bytes] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """Return the headers that go on: no hop-by-hop, none named in Connection, none of ``also``.

    Order and duplicates are kept; the result is a new list that the caller may append to.
    """
    drops = _hop_by_hop_and(also) if also else HOP_BY_HOP
    kept = []
    for header in headers:
        name = header[0]
        if name not in drops:
            kept.append(header)
        elif name == b"connection" and header[1] not in _WITHOUT_NAMES:
            return _without_named(headers, drops)
    return kept


@lru_cache(maxsize=16)
def _hop_by_hop_and(also: frozenset[bytes]) -> frozenset[bytes]:
    return HOP_BY_HOP | also


def connection_names(headers: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Return what the Connection headers name, lower case (RFC 9110 §7.6.1)."""
    return {
        option.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }


def _without_named(
    headers: list[tuple[bytes, bytes]], drops: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    drops = drops | connection_names(headers)
    return [header for header in headers if header[0] not in drops]
