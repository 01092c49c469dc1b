"""Problem documents (RFC 9457): the only format of errors that gateway and worker make."""

import json
from collections.abc import Iterable

from wire.headers import CONTENT_TYPE
from wire.http1 import REASONS

PROBLEM_JSON = b"application/problem+json"
REQUEST_ID = b"x-request-id"
"""Response header with the id of a request that is not an invocation.

Invocations have ``nvcf-reqid``.
"""


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

    ``headers`` come first, then content type and, with ``id_header``, `REQUEST_ID`. Responses to
    invocations and attach calls are without `REQUEST_ID`.
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
        complete.append((REQUEST_ID, request_id.encode()))
    return complete, body


def instance_of(target: bytes) -> str:
    """Return a problem's ``instance``: the path of a request target as received, without query."""
    return target.partition(b"?")[0].decode("latin-1")
