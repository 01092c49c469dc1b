"""Progress files, 202s and problem documents."""

import json

import pytest

from worker_agent.compat.rewriting import (
    ProgressError,
    ProgressNews,
    error_response,
    progress_response,
    read_progress,
)


def test_progress_is_read_and_told() -> None:
    data = b'{"id": "r1", "progress": 45, "partialResponse": {"a": [1, 2]}}'
    news = read_progress(data)
    assert news == ProgressNews("r1", 45, b'{"a":[1,2]}')
    assert progress_response(news) == (
        b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\n"
        b'nvcf-percent-complete: 45\r\ncontent-length: 11\r\n\r\n{"a":[1,2]}'
    )


def test_progress_without_a_part_of_the_response_tells_null() -> None:
    assert read_progress(b'{"id": "r1", "progress": 0}').partial == b"null"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"progress": 1}',
        b'{"id": 7, "progress": 1}',
        b'{"id": "r1", "progress": -1}',
        b'{"id": "r1", "progress": 1.5}',
        b'{"id": "r1", "progress": true}',
        b'{"id": "r1", "progress": 4294967296}',
        b'{"id": "r1", "progress": 1, "partialResponse": []}',
    ],
)
def test_what_is_no_progress_is_refused(data: bytes) -> None:
    with pytest.raises(ProgressError):
        read_progress(data)


@pytest.mark.parametrize(
    ("status", "body", "detail", "kind"),
    [
        (400, b'{"error": "x"}', "x", "bad-request"),
        (500, b'{"error": {"message": "x"}}', "Inference error", "internal-server-error"),
        (503, b"not JSON", "Inference error", "service-unavailable"),
        (599, b"", "Inference error", "error"),
    ],
)
def test_errors_are_problem_documents(status: int, body: bytes, detail: str, kind: str) -> None:
    headers, document = error_response(
        status, [(b"retry-after", b"3"), (b"set-cookie", b"a=b")], body, "r1"
    )
    assert headers == [
        (b"retry-after", b"3"),
        (b"content-type", b"application/problem+json"),
    ]
    found = json.loads(document)
    assert (found["status"], found["detail"], found["requestId"]) == (status, detail, "r1")
    assert found["type"] == f"urn:inference-service:problem-details:{kind}"
