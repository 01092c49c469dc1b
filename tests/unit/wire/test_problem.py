import json

from wire.problem import problem


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
