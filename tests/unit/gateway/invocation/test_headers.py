"""Headers on the way to the worker and back to the client."""

import pytest

from gateway.invocation.headers import (
    correlation_of,
    nvcf_status,
    request_headers,
    with_platform_headers,
)
from wire.headers import EXPOSED_HEADERS


def test_the_envelope_gets_the_region_and_neither_the_credential_nor_a_forged_region() -> None:
    given = [
        (b"accept", b"text/plain"),
        (b"authorization", b"Bearer secret"),
        (b"nvcf-invocation-region", b"forged"),
        (b"nvcf-allow-rerun", b"forged"),
    ]
    kept = [
        (b"accept", b"text/plain"),
        (b"nvcf-invocation-region", b"eu"),
        (b"nvcf-feature-disable-worker-compatibility", b"true"),
    ]
    assert request_headers(given, b"eu", allows_rerun=True) == kept
    assert request_headers(given, b"eu", allows_rerun=False) == [
        *kept,
        (b"nvcf-allow-rerun", b"false"),
    ]


def test_trace_and_request_id_of_the_caller_are_values_of_headers_and_empty_without_them() -> None:
    trace, caller_id = (b"traceparent", b"00-a-b-01"), (b"x-request-id", b"mine")
    assert correlation_of([(b"accept", b"x"), trace, caller_id]) == (trace[1], caller_id[1])
    assert correlation_of([(b"tracestate", b"x")]) == (b"", b"")


def test_the_workers_own_platform_headers_are_replaced() -> None:
    given = [(b"nvcf-reqid", b"forged"), (b"etag", b"1"), (b"nvcf-status", b"forged")]
    assert with_platform_headers(given, 200, "the-id") == [
        (b"etag", b"1"),
        (b"nvcf-reqid", b"the-id"),
        (b"nvcf-status", b"fulfilled"),
        (b"access-control-expose-headers", b", ".join(EXPOSED_HEADERS)),
    ]


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
