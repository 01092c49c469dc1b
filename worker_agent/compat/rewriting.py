"""What clients of NVCF's polling routes get in place of the inference server's response. Pure.

Source: ``docs/wire.md`` §8.8.
"""

from typing import NamedTuple

import orjson

from http1.stream import Headers
from wire.headers import CONTENT_TYPE, NVCF_PERCENT_COMPLETE
from wire.http1 import REASONS, encode_response_head
from wire.problem import PROBLEM_JSON, problem

ACCEPTED = 202
FIRST_ERROR = 400
EMPTY = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
"""The 202 of a client whose window has ended."""
_SOURCE = "inference-service"
_UNSAID = "Inference error"
_RETRY_AFTER = b"retry-after"
_MAX_PERCENT = (1 << 32) - 1


class ProgressError(Exception):
    """What the function wrote is not news of its progress."""


class ProgressNews(NamedTuple):
    """News of one request: how much is done, in per cent, and a part of its response, as JSON."""

    request_id: str
    percent: int
    partial: bytes


def read_progress(data: bytes) -> ProgressNews:
    """Return the content of a progress file. Raises `ProgressError`."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProgressError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ProgressError("not a JSON object")
    request_id, percent = document.get("id"), document.get("progress", 0)
    if not isinstance(request_id, str) or not request_id:
        raise ProgressError("no id")
    if type(percent) is not int or not 0 <= percent <= _MAX_PERCENT:
        raise ProgressError("progress is not a whole number from 0")
    partial = document.get("partialResponse")
    if partial is not None and not isinstance(partial, dict):
        raise ProgressError("partialResponse is not an object")
    try:
        return ProgressNews(request_id, percent, orjson.dumps(partial))
    except orjson.JSONEncodeError as error:
        # It reads deeper nesting than it writes.
        raise ProgressError(f"partialResponse: {error}") from error


def progress_response(news: ProgressNews) -> bytes:
    """Return the whole 202 that tells of the progress."""
    head = encode_response_head(
        ACCEPTED,
        [
            (CONTENT_TYPE, b"application/json"),
            (NVCF_PERCENT_COMPLETE, b"%d" % news.percent),
        ],
        b"content-length: %d\r\n" % len(news.partial),
    )
    return head + news.partial


def error_response(
    status: int, headers: Headers, body: bytes, request_id: str
) -> tuple[Headers, bytes]:
    """Return headers and body in place of an error of the inference server.

    ``body`` is what it sent, or its beginning. Of its headers only ``retry-after`` is kept.
    """
    detail = _UNSAID
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        detail = document["error"]
    title = REASONS.get(status, b"Error").decode()
    kind = title.lower().replace(" ", "-")
    kept = [header for header in headers if header[0] == _RETRY_AFTER]
    kept.append((CONTENT_TYPE, PROBLEM_JSON))
    return kept, problem(status, kind, detail, request_id=request_id, source=_SOURCE)
