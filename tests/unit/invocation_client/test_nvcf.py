import httpx
import pytest

import invocation_client


def test_headers_of_an_invocation_are_read() -> None:
    response = httpx.Response(200, headers={"NVCF-REQID": "r1", "NVCF-STATUS": "fulfilled"})
    assert invocation_client.request_id(response) == "r1"
    assert invocation_client.status(response) == "fulfilled"
    assert invocation_client.request_id(httpx.Response(200)) is None
    assert invocation_client.status(httpx.Response(200)) is None


def test_poll_seconds_are_a_header() -> None:
    assert invocation_client.poll_seconds(300) == {"nvcf-poll-seconds": "300"}
    with pytest.raises(ValueError, match="negative"):
        invocation_client.poll_seconds(-1)
