"""Headers on the way to the worker and back to the client."""

import pytest

from gateway.invocation.headers import (
    correlation_of,
    nvcf_status,
    outer_headers,
    request_headers,
    source_headers,
    with_platform_headers,
)
from http1.stream import Headers, Request
from wire.envelope import encode_headers
from wire.headers import EXPOSED_HEADERS
from wire.source import Source

CLIENT = Source("203.0.113.7", b"https", b"f.example")


def test_the_envelope_gets_the_region_and_neither_the_credential_nor_a_forged_region() -> None:
    given = [
        (b"accept", b"text/plain"),
        (b"authorization", b"Bearer secret"),
        (b"nvcf-invocation-region", b"forged"),
        (b"nvcf-allow-rerun", b"forged"),
        (b"nvcf-pass-interim", b"true"),
    ]
    kept = [
        (b"accept", b"text/plain"),
        (b"nvcf-invocation-region", b"eu"),
        (b"nvcf-feature-disable-worker-compatibility", b"true"),
        (b"nvcf-polled", b"false"),
    ]
    assert request_headers(given, b"eu", allows_rerun=True, passes_interim=False) == kept
    assert request_headers(given, b"eu", allows_rerun=False, passes_interim=True) == [
        *kept,
        (b"nvcf-allow-rerun", b"false"),
        (b"nvcf-pass-interim", b"true"),
    ]


def _request(headers: Headers) -> Request:
    return Request(b"GET", b"/", b"h", headers, 0, 0.0)


def test_trace_and_request_id_of_the_caller_are_values_of_headers_and_empty_without_them() -> None:
    trace, caller_id = (b"traceparent", b"00-a-b-01"), (b"x-request-id", b"mine")
    assert correlation_of(_request([(b"accept", b"x"), trace, caller_id])) == (
        trace[1],
        caller_id[1],
    )
    assert correlation_of(_request([(b"tracestate", b"x")])) == (b"", b"")


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        (b"forwarded", False),
        (b"x-forwarded-for", False),
        (b"x_forwarded_for", False),
        (b"x-forwarded_for", False),
        (b"x-forwarded-host", False),
        (b"x-forwarded-proto", False),
        (b"x-forwarded-prefix", False),
        (b"x-real-ip", False),
        (b"x_real_ip", False),
        (b"x-forwarded-by-someone", True),
    ],
)
def test_only_the_gateway_says_where_a_request_comes_from(name: bytes, is_kept: bool) -> None:
    sent = request_headers([(name, b"x")], b"eu", allows_rerun=True, passes_interim=False)
    assert ((name, b"x") in sent) is is_kept


def test_what_is_said_of_a_client_is_encoded_once() -> None:
    source = Source("203.0.113.7", b"http", b"a.example")
    assert source_headers(source) is source_headers(source)
    assert source_headers(source) == encode_headers(list(source.headers))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(b"content-type", b"text/event-stream")], (b"x-accel-buffering", b"no")),
        ([(b"content-type", b"Text/Event-Stream; charset=utf-8")], (b"x-accel-buffering", b"no")),
        (
            [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"yes")],
            (b"x-accel-buffering", b"yes"),
        ),
        ([(b"content-type", b"application/json")], None),
        ([], None),
    ],
)
def test_an_event_stream_is_not_to_be_buffered(
    given: Headers, expected: tuple[bytes, bytes] | None
) -> None:
    headers = outer_headers(given, CLIENT, 8000)
    marks = [header for header in headers if header[0] == b"x-accel-buffering"]
    assert marks == ([] if expected is None else [expected])


def test_locations_of_the_inference_server_name_what_the_client_called() -> None:
    given = [
        (b"location", b"http://127.0.0.1:8000/a"),
        (b"x", b"http://127.0.0.1:8000/b"),
        (b"content-location", b"http://localhost:8000/c"),
        (b"content-type", b"text/event-stream"),
    ]
    assert outer_headers(given, CLIENT, 8000) == [
        (b"location", b"https://f.example/a"),
        (b"x", b"http://127.0.0.1:8000/b"),
        (b"content-location", b"https://f.example/c"),
        (b"content-type", b"text/event-stream"),
        (b"x-accel-buffering", b"no"),
    ]
    below = CLIENT.below(b"/f/x")
    assert outer_headers([(b"location", b"/a")], below, 8000) == [(b"location", b"/f/x/a")]
    for unchanged in (
        [(b"location", b"/a"), (b"content-type", b"text/plain")],
        [(b"date", b"x"), (b"content-type", b"application/json")],
    ):
        assert outer_headers(unchanged, CLIENT, 8000) == unchanged


def test_the_workers_own_platform_headers_are_replaced() -> None:
    given = [(b"nvcf-reqid", b"forged"), (b"etag", b"1"), (b"nvcf-status", b"forged")]
    assert with_platform_headers(given, 200, "the-id") == [
        (b"etag", b"1"),
        (b"x-request-id", b"the-id"),
        (b"nvcf-reqid", b"the-id"),
        (b"nvcf-status", b"fulfilled"),
        (b"access-control-expose-headers", b", ".join(EXPOSED_HEADERS)),
    ]


def test_a_functions_own_x_request_id_is_kept() -> None:
    given = [(b"x-request-id", b"its-own"), (b"etag", b"1")]
    got = with_platform_headers(given, 200, "the-id")
    assert [value for name, value in got if name == b"x-request-id"] == [b"its-own"]
    assert (b"nvcf-reqid", b"the-id") in got


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, b"fulfilled"),
        (202, b"in-progress"),
        (302, b"fulfilled"),
        (399, b"fulfilled"),
        (400, b"errored"),
        (503, b"errored"),
    ],
)
def test_the_status_of_the_invocation_follows_that_of_the_response(
    status: int, expected: bytes
) -> None:
    assert nvcf_status(status) == expected
