"""Problem documents (RFC 9457): the one shape of every error that we make."""

import json

from wire.http1 import REASONS

PROBLEM_JSON = b"application/problem+json"
REQUEST_ID = b"x-request-id"
"""The header that carries the id of a request that is no invocation, which has ``nvcf-reqid``."""


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

    ``kind`` is kebab-case, unique within ``source``: ``type`` becomes
    ``urn:<source>:problem-details:<kind>``. ``source`` says who is speaking: the gateway (``nvcf``)
    or the worker for its inference server (``inference-service``). ``reason`` is a word that
    programs branch on. Empty members are left out; ``extra`` adds members of the kind's own.
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


def instance_of(target: bytes) -> str:
    """Return a problem's ``instance``: the path of a request target, as it came, no query."""
    return target.partition(b"?")[0].decode("latin-1")
