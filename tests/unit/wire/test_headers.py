import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.headers import (
    HOP_BY_HOP,
    INVOCATION_DROPS,
    forwardable,
    forwardable_interim,
    forwardable_trailers,
    misspelled,
)

names = st.sampled_from([b"accept", b"cookie", b"te", b"upgrade", b"connection", b"x-a", b"host"])
values = st.sampled_from([b"x-a", b"close", b"keep-alive", b"close, Cookie", b" ,", b"TE,\tx-a "])


def test_what_is_not_hop_by_hop_goes_on_in_order_with_duplicates() -> None:
    headers = [
        (b"cookie", b"a=1"),
        (b"te", b"trailers"),
        (b"connection", b"keep-alive"),
        (b"keep-alive", b"timeout=5"),
        (b"accept", b"*/*"),
        (b"cookie", b"b=2"),
    ]
    assert forwardable(headers) == [(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")]


@pytest.mark.parametrize("value", [b"x-secret", b"close, X-Secret", b"x-other ,\tX-SECRET"])
def test_what_connection_names_stays_also_when_it_came_before(value: bytes) -> None:
    headers = [(b"x-secret", b"1"), (b"connection", b"close"), (b"connection", value)]
    assert forwardable([*headers, (b"x-kept", b"2")]) == [(b"x-kept", b"2")]


def test_an_invocation_takes_host_and_length_along_but_not_the_key_or_the_gateways_own_names() -> (
    None
):
    headers = [
        (b"host", b"f.example.com"),
        (b"authorization", b"Bearer key"),
        (b"content-length", b"5"),
        (b"expect", b"100-continue"),
        (b"nvcf-invocation-region", b"forged"),
        (b"nvcf-feature-disable-worker-compatibility", b"false"),
        (b"nvcf-poll-seconds", b"5"),
    ]
    assert forwardable(headers, INVOCATION_DROPS) == [
        (b"host", b"f.example.com"),
        (b"content-length", b"5"),
        (b"nvcf-poll-seconds", b"5"),
    ]


def test_the_result_is_a_list_of_its_own() -> None:
    headers = [(b"accept", b"*/*")]
    forwardable(headers).append((b"x", b"y"))
    assert headers == [(b"accept", b"*/*")]


@given(st.lists(st.tuples(names, values)), st.frozensets(names))
def test_the_rules_hold_for_any_list(
    headers: list[tuple[bytes, bytes]], also: frozenset[bytes]
) -> None:
    named = b",".join(value for name, value in headers if name == b"connection")
    drops = HOP_BY_HOP | also | {option.strip().lower() for option in named.split(b",")}
    assert forwardable(headers, also) == [pair for pair in headers if pair[0] not in drops]


def test_every_mix_of_hyphens_and_underscores_but_the_right_one_is_a_misspelling() -> None:
    assert misspelled([b"a-b-c", b"abc"]) == {b"a_b-c", b"a-b_c", b"a_b_c"}


@pytest.mark.parametrize(
    "name", [b"nvcf_sub", b"nvcf-function_id", b"nvcf_allow_rerun", b"nvcf_pass_interim"]
)
def test_what_an_inference_server_could_take_for_the_platforms_is_never_forwarded(
    name: bytes,
) -> None:
    headers = [(name, b"forged"), (b"nvcf-sub", b"for the worker to drop"), (b"x_y", b"1")]
    assert forwardable(headers, INVOCATION_DROPS) == headers[1:]


def test_an_interim_response_has_no_headers_of_a_body_a_connection_or_the_platform() -> None:
    headers = [
        (b"link", b"</a.css>; rel=preload"),
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"content-type", b"text/plain"),
        (b"nvcf-reqid", b"forged"),
        (b"nvcf-progress", b"1"),
        (b"access-control-allow-origin", b"*"),
    ]
    assert forwardable_interim(headers) == headers[:1]


def test_trailers_give_neither_access_nor_another_id() -> None:
    trailers = [
        (b"access-control-allow-origin", b"*"),
        (b"x-request-id", b"other"),
        (b"nvcf-reqid", b"other"),
        (b"x-checksum", b"1"),
    ]
    assert forwardable_trailers(trailers) == [(b"x-checksum", b"1")]
