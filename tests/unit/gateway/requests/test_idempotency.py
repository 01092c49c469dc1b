"""Idempotency-Key: the header, the name of a claim, fingerprints and decisions."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.requests.idempotency import (
    DECISIONS,
    Decision,
    Fingerprint,
    Found,
    KeyClaim,
    claim_name,
    is_same,
    key_of,
    parse_key,
)
from http1.stream import Headers, Request

REQUEST_ID = "33333333-3333-4333-8333-333333330007"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', b"8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", b"8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"stainless-python-retry-1f", b"stainless-python-retry-1f"),
        (rb'"a \"quoted\" \\ key"', rb'a "quoted" \ key'),
        (b'"k";expires=60; a;b="x;y"', b"k"),
        (b"order:17/a+b=", b"order:17/a+b="),
        (b"x" * 255, b"x" * 255),
    ],
)
def test_a_string_of_structured_fields_and_a_bare_word_are_keys(value: bytes, key: bytes) -> None:
    assert parse_key(value) == key


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b'""', b'"', b'"a', b'a"', b"a b", b'"a" b', b"a, b", b'"a", "b"', b"a;b"),
        *(b"\xc3\xa9", b'"\xc3\xa9"', rb'"\n"', b'"a";B=1', b'"a\tb"'),
        *(b"x" * 256, b'"' + b"x" * 256 + b'"'),
    ],
)
def test_what_is_neither_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_key(value)


def test_a_request_has_one_key() -> None:
    assert key_of(request([(b"idempotency-key", b'"k"')])) == b"k"
    with pytest.raises(BadRequest):
        key_of(request([(b"idempotency-key", b"k"), (b"idempotency-key", b"k")]))


@given(st.tuples(st.text(), st.text(), st.binary()), st.tuples(st.text(), st.text(), st.binary()))
def test_accounts_functions_and_keys_that_differ_have_different_claims(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    assert (claim_name(*one) == claim_name(*other)) == (one == other)


def test_a_repeated_request_has_the_same_fingerprint_whatever_changed_on_the_way() -> None:
    first = fingerprint(
        [(b"content-type", b"application/json"), (b"x-retry-count", b"0")], [b"ab", b"c"]
    )
    again = fingerprint(
        [(b"x-retry-count", b"1"), (b"content-type", b"application/json ")], [b"a", b"bc"]
    )
    assert first == again


def test_another_request_has_another_fingerprint() -> None:
    json = [(b"content-type", b"application/json")]
    prints = [
        fingerprint(json, [b"abc"]),
        fingerprint(json, [b"abd"]),
        fingerprint([], [b"abc"]),
        fingerprint([(b"content-encoding", b"application/json")], [b"abc"]),
        fingerprint([*json, (b"nvcf-input-asset-references", b"a1")], [b"abc"]),
        fingerprint([*json, (b"nvcf-webhook-url", b"https://a.example/")], [b"abc"]),
        fingerprint(json, [b"abc"], method=b"PUT"),
        fingerprint(json, [b"abc"], target=b"/v2"),
        fingerprint(json, [b"abc"], version_id="22222222-2222-4222-8222-222222222222"),
    ]
    assert len(set(prints)) == len(prints)


def test_a_claim_is_read_as_it_was_written_and_nothing_else_is_one() -> None:
    claim = KeyClaim(REQUEST_ID, "f0")
    assert KeyClaim.decode(claim.encode()) == claim
    for document in (b"", b"{}", b"[]", b"7", b'{"requestId":"x","fingerprint":""}', b'"x"'):
        assert KeyClaim.decode(document) is None


def test_a_call_runs_only_if_nothing_has_claimed_its_key() -> None:
    for found, same in product(Found, (None, True, False)):
        decision = DECISIONS.get((found, same))
        assert (decision is Decision.RUN) == ((found, same) == (Found.ABSENT, None))
        if same is False and found is not Found.RELEASED:
            assert decision in (Decision.REFUSE, None)
    assert is_same("a", "a") is True
    assert is_same("a", "b") is False
    assert is_same("a", "") is None


def fingerprint(
    headers: Headers,
    body: list[bytes],
    *,
    method: bytes = b"POST",
    target: bytes = b"/v1",
    version_id: str | None = None,
) -> str:
    found = Fingerprint(request(headers, method), target, version_id)
    for part in body:
        found.add(part)
    return found.digest()


def request(headers: Headers, method: bytes = b"POST") -> Request:
    return Request(method, b"/v1", b"f.example", headers, None, 0.0)
