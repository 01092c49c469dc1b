"""Responses on their way into the envelope of exec."""

import json

import pytest

from gateway.invocation.headers import encoded_head
from gateway.requests.exec_body import MAX_RESPONSE_BYTES
from gateway.requests.exec_writer import ExecWriter
from http1.stream import Headers
from tests.support.recorder import RecordedResponseWriter, Script
from wire.http1 import InnerHead

ID = "22222222-2222-4222-8222-222222222222"


def wrapping(*, as_text: bool = False) -> tuple[ExecWriter, RecordedResponseWriter]:
    client = RecordedResponseWriter(Script(), "client")
    return ExecWriter(client, ID, as_text=as_text), client


def sent(client: RecordedResponseWriter) -> tuple[int, dict[str, object]]:
    assert client.over
    assert client.head is not None
    status, headers, length = client.head
    assert length == len(client.sent)
    assert [value for name, value in headers if name == b"content-type"] == [b"application/json"]
    return status, json.loads(client.sent)


def test_a_response_is_sent_when_it_is_complete() -> None:
    writer, client = wrapping()
    headers: Headers = [
        (b"content-type", b"text/json"),
        (b"content-encoding", b"identity"),
        (b"x-own", b"1"),
        (b"nvcf-reqid", ID.encode()),
    ]
    writer.send_head(200, headers, 10)
    writer.send_data(b'{"a"')
    writer.send_chunk(b"3\r\n:1}\r\n", 3)
    assert client.head is None
    writer.send_end()
    assert sent(client)[1]["response"] == {"a": 1}
    assert client.head is not None
    assert client.head[1] == [
        (b"x-own", b"1"),
        (b"nvcf-reqid", ID.encode()),
        (b"content-type", b"application/json"),
        (b"nvcf-status", b"fulfilled"),
    ]


def test_a_whole_response_is_wrapped_too() -> None:
    writer, client = wrapping(as_text=True)
    head = encoded_head(InnerHead(200, [(b"x-own", b"1")], None))
    assert head is not None
    writer.send_whole(head, b"nvcf-reqid: x\r\n", 1, b"1")
    assert sent(client)[1]["response"] == "1"
    assert client.head is not None
    assert {(b"x-own", b"1"), (b"nvcf-reqid", b"x")} <= set(client.head[1])


def test_a_location_becomes_a_reference() -> None:
    writer, client = wrapping()
    writer.send_head(302, [(b"location", b"https://o.example/1")], 0)
    writer.send_end()
    status, document = sent(client)
    assert (status, document["responseReference"]) == (200, "https://o.example/1")
    assert client.head is not None
    assert b"location" not in dict(client.head[1])
    assert dict(client.head[1])[b"nvcf-status"] == b"fulfilled"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [(201, b"{}", True), (307, b"", True), (202, b"{}", False), (301, b"\xff", False)],
)
def test_a_location_stays_with_the_status_that_it_explains(
    status: int, body: bytes, expected: bool
) -> None:
    writer, client = wrapping()
    writer.send_head(status, [(b"location", b"/elsewhere")], len(body))
    writer.send_data(body)
    writer.send_end()
    assert (sent(client)[0] == status) is (body != b"\xff")
    assert client.head is not None
    assert ((b"location", b"/elsewhere") in client.head[1]) is expected


def test_a_response_that_breaks_off_or_is_too_large_is_an_error() -> None:
    writer, client = wrapping()
    writer.send_head(200, [], None)
    writer.send_data(b"{")
    writer.abort()
    assert sent(client)[0] == 502
    writer, client = wrapping()
    writer.send_head(200, [], None)
    for _ in range(3):
        writer.send_data(b"1" * (MAX_RESPONSE_BYTES // 2))
    writer.send_end()
    assert sent(client)[0] == 502
