"""What the store keeps of a webhook, and what its receiver gets."""

import json

import pytest

from gateway.domain.documents import RecordError
from gateway.webhooks.records import DELIVERED, MAX_BODY_BYTES, WebhookDelivery, body_of, decode

ID = "33333333-3333-4333-8333-333333330007"
ONE = WebhookDelivery(
    "acme", "https://example.com/", "{}", 1000.0, 1005.5, attempts=1, status=500, holder="x"
)


def test_a_webhook_is_read_as_it_was_written() -> None:
    assert decode(ONE.encode()) == ONE
    for data in (b"", b"{}", b'{"schema":1,"kind":"other"}'):
        with pytest.raises(RecordError):
            decode(data)


def test_what_is_shown_of_it() -> None:
    assert ONE.view() == {
        "state": "pending",
        "attempts": 1,
        "lastStatus": 500,
        "nextAttemptAt": "1970-01-01T00:16:45.500Z",
    }
    ended = ONE.ended(DELIVERED, 2000.0)
    assert (ended.body, ended.holder, ended.ended_at) == ("", "", 2000.0)
    assert ended.view() == {"state": "delivered", "attempts": 1, "lastStatus": 500}


def test_the_body_names_how_the_call_ended_and_where_its_response_is() -> None:
    body = json.loads(body_of("done", ID, {"requestId": ID, "status": 200}, 1.5))
    assert body == {
        "type": "request.done",
        "timestamp": "1970-01-01T00:00:01.500Z",
        "data": {
            "requestId": ID,
            "status": 200,
            "responseUrl": f"/v2/requests/{ID}/response",
        },
    }


def test_a_problem_that_is_too_large_is_left_out() -> None:
    view = {"requestId": ID, "problem": {"detail": "x" * MAX_BODY_BYTES}}
    body = body_of("failed", ID, view, 1.0)
    assert len(body) < 300
    assert "problem" not in json.loads(body)["data"]
    assert "problem" in view
