import json

from wire.problem import problem, problem_response


def test_members_without_a_value_are_left_out() -> None:
    assert json.loads(problem(404, "function-not-found", "No such function")) == {
        "type": "urn:nvcf:problem-details:function-not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "No such function",
    }


def test_all_members() -> None:
    document = problem(
        413,
        "body-too-large",
        'A "quoted" détail',
        instance="/v1/x",
        request_id="id",
        reason="too_large",
        source="inference-service",
        limit_bytes=5,
    )
    assert json.loads(document) == {
        "type": "urn:inference-service:problem-details:body-too-large",
        "title": "Content Too Large",
        "status": 413,
        "detail": 'A "quoted" détail',
        "instance": "/v1/x",
        "requestId": "id",
        "reason": "too_large",
        "limit_bytes": 5,
    }


def test_a_response_has_its_headers_in_order_and_the_id_only_if_asked() -> None:
    given = [(b"retry-after", b"1")]
    content_type = (b"content-type", b"application/problem+json")
    headers, body = problem_response(
        503,
        "draining",
        "Stop",
        instance="/x",
        request_id="id",
        reason="draining",
        headers=given,
    )
    assert headers == [*given, content_type, (b"x-request-id", b"id")]
    assert body == problem(
        503, "draining", "Stop", instance="/x", request_id="id", reason="draining"
    )
    for request_id, id_header in (("", True), ("id", False)):
        headers, _ = problem_response(
            404, "not-found", "No", instance="/", request_id=request_id, id_header=id_header
        )
        assert headers == [content_type]
