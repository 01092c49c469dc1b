"""The error responses for bytes that are not a request."""

import json

import pytest

from http1.server.http_error import (
    HttpError,
    bad_request,
    encode_error_response,
    internal_error,
    request_timeout,
)

DATE = b"date: now\r\n"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (bad_request("The detail"), 400, "malformed-request"),
        (request_timeout(), 408, "request-timeout"),
        (internal_error(), 500, "internal-error"),
    ],
)
def test_an_error_is_a_problem_document_that_closes(
    error: HttpError, status: int, kind: str
) -> None:
    head, _, body = encode_error_response(
        error, b"/a?secret", "the-id", DATE, to_head=False
    ).partition(b"\r\n\r\n")
    document = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert document["status"] == status
    assert document["type"] == f"urn:nvcf:problem-details:{kind}"
    assert document["detail"] == error.detail
    assert (document["instance"], document["requestId"]) == ("/a", "the-id")
    assert b"\r\nx-request-id: the-id\r\n" in head
    assert b"\r\ndate: now\r\n" in head
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
    assert head.endswith(b"\r\nconnection: close")


def test_an_error_without_a_target_has_no_instance() -> None:
    _, body = bad_request("The detail").response(b"", "the-id")
    assert "instance" not in json.loads(body)


def test_only_a_503_says_when_to_retry() -> None:
    headers, _ = HttpError(503, "too-many-connections", "Too many").response(b"", "the-id")
    assert (b"retry-after", b"1") in headers
    headers, _ = bad_request("The detail").response(b"", "the-id")
    assert b"retry-after" not in dict(headers)
