"""Problem documents (RFC 9457): the only format of errors that gateway and worker make.

Each says its reason twice more, where SDKs look for it: in ``message``, and in ``error`` as in
OpenAI's API. Without ``error``, OpenAI's SDK for Node shows the status and "no body".
"""

import json
from collections.abc import Iterable

from wire.headers import CONTENT_TYPE, NVCF_REQID, X_REQUEST_ID
from wire.http1 import REASONS

PROBLEM_JSON = b"application/problem+json"
NO_RETRY = (b"x-should-retry", b"false")
"""Response header that keeps OpenAI's SDKs, and others of the same make, from sending a request
again. They do so after every 408, 409, 429 and 5xx, however often the call may have run already."""

_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def problem(  # noqa: PLR0913 - one argument per member of the document
    status: int,
    kind: str,
    detail: str,
    *,
    instance: str = "",
    request_id: str = "",
    reason: str = "",
    source: str = "nvcf",
    **extra: object,
) -> bytes:
    """Return a problem document as JSON.

    ``kind`` is kebab-case and unique within ``source``: ``type`` becomes
    ``urn:<source>:problem-details:<kind>``. ``source`` says who made the document: the gateway
    (``nvcf``) or the worker for its inference server (``inference-service``). ``reason`` is a word
    that programs branch on. Empty members are left out; ``extra`` adds further members.
    ``message`` and ``error`` repeat what SDKs look for there.
    """
    document: dict[str, object] = {
        "type": f"urn:{source}:problem-details:{kind}",
        "title": REASONS.get(status, b"Error").decode(),
        "status": status,
        "detail": detail,
    }
    if instance:
        document["instance"] = instance
    if request_id:
        document["requestId"] = request_id
    if reason:
        document["reason"] = reason
    document.update(extra)
    document["message"] = detail
    document["error"] = {
        "message": detail,
        "type": error_type(status),
        "code": reason or kind.replace("-", "_"),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def problem_response(  # noqa: PLR0913 - one argument per member of the document
    status: int,
    kind: str,
    detail: str,
    *,
    instance: str,
    request_id: str,
    reason: str = "",
    headers: Iterable[tuple[bytes, bytes]] = (),
    id_header: bool = True,
    **extra: object,
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of an error response of the gateway; arguments as for `problem`.

    ``headers`` come first, then content type and, with ``id_header``, those of `id_headers`.
    Invocations get theirs elsewhere, and attach calls need none.
    """
    body = problem(
        status,
        kind,
        detail,
        instance=instance,
        request_id=request_id,
        reason=reason,
        source="nvcf",
        **extra,
    )
    complete = [*headers, (CONTENT_TYPE, PROBLEM_JSON)]
    if id_header and request_id:
        complete += id_headers(request_id)
    return complete, body


def id_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """Return the response headers with a request's id, of which SDKs and people know one each."""
    value = request_id.encode()
    return [(NVCF_REQID, value), (X_REQUEST_ID, value)]


def error_type(status: int) -> str:
    """Return the kind of an error in OpenAI's words."""
    if status >= 500:
        return "server_error"
    return _ERROR_TYPES.get(status, "invalid_request_error")


def instance_of(target: bytes) -> str:
    """Return a problem's ``instance``: the path of a request target as received, without query."""
    return target.partition(b"?")[0].decode("latin-1")
