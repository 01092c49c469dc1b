"""gRPC's statuses, messages and deadlines."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.grpc import (
    decode_timeout,
    encode_error,
    encode_timeout,
    error_response,
    is_grpc,
    status_of,
    window_s,
)
from wire.http1 import parse_inner_head


def test_the_content_type_of_grpc_is_known_with_its_variants() -> None:
    for value in (b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=x"):
        assert is_grpc(value)
    for value in (b"application/grpc-web", b"application/grpc-web+proto", b"application/json", b""):
        assert not is_grpc(value)


@pytest.mark.parametrize(
    ("http", "grpc"),
    [(401, 16), (403, 7), (404, 5), (429, 8), (504, 4), (503, 14), (502, 14), (500, 13), (418, 2)],
)
def test_a_status_of_http_has_one_of_grpc(http: int, grpc: int) -> None:
    assert status_of(http) == grpc


@given(st.text(max_size=50))
def test_any_message_survives_as_ascii_without_line_breaks(text: str) -> None:
    (_, status), (_, message) = encode_error(5, text)
    assert status == b"5"
    assert message.isascii()
    assert message.decode().isprintable()
    assert unquote(message.decode()) == text


def test_an_error_is_a_whole_response_without_a_body() -> None:
    parsed = parse_inner_head(error_response(14, "no 100 % luck\n"))
    assert parsed is not None
    head, at = parsed
    assert (head.status, head.body_bytes, at) == (
        200,
        0,
        len(error_response(14, "no 100 % luck\n")),
    )
    assert (b"grpc-message", b"no 100 %25 luck%0A") in head.headers


@pytest.mark.parametrize(
    ("value", "ns"),
    [(b"1n", 1), (b"2u", 2_000), (b"3m", 3_000_000), (b"4S", 4 * 10**9), (b"5M", 300 * 10**9)],
)
def test_deadlines_are_read(value: bytes, ns: int) -> None:
    assert decode_timeout(value) == ns


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"123456789S", b"1 S", b"-1S", b"1s", b"1SS"])
def test_what_is_no_deadline_is_refused(value: bytes) -> None:
    assert decode_timeout(value) is None
    assert window_s(value, None) is None


@given(st.integers(1, 10**20))
def test_a_deadline_is_written_within_a_thousandth_and_never_later(ns: int) -> None:
    found = decode_timeout(encode_timeout(ns))
    assert found is not None
    assert found <= ns
    assert found >= min(ns, 99_999_999 * 3600 * 10**9) * 0.98 or ns - found < 3600 * 10**9


def test_a_deadline_in_the_past_is_the_shortest_one() -> None:
    assert encode_timeout(-5) == b"1n"


def test_the_window_is_the_shorter_one_and_that_of_an_invocation_without_any() -> None:
    assert window_s(None, None) == 3600
    assert window_s(None, 7) == 7
    assert window_s(b"1500m", None) == 2
    assert window_s(b"1n", 60) == 1
    assert window_s(b"10H", None) == 3600
    assert window_s(b"90S", 60) == 60
