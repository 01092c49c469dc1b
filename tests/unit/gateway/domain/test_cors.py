"""Which web pages may read responses."""

import pytest

from gateway.domain.cors import OPEN, PagePolicy, page_policy_of
from gateway.domain.documents import RecordError

LISTED = PagePolicy(frozenset({"https://app.example"}))


def test_a_policy_allows_the_origins_that_it_lists_and_an_open_one_all() -> None:
    assert LISTED.allows(b"https://app.example")
    assert not LISTED.allows(b"https://app.example.evil.example")
    assert not LISTED.allows(b"null")
    assert not LISTED.allows(b"https://\xff")
    assert not LISTED.allows(None)
    assert OPEN.allows(b"null")
    assert OPEN.allows(None)


def test_the_spec_of_a_version_has_a_policy_if_it_lists_origins() -> None:
    assert page_policy_of({}) is None
    assert page_policy_of({"cors": {"origins": []}}) is None
    assert page_policy_of({"cors": {"origins": ["*"]}}) == OPEN
    assert page_policy_of({"cors": LISTED.document()}) == LISTED
    found = page_policy_of({"cors": {"origins": ["https://a"], "credentials": True}})
    assert found == PagePolicy(frozenset({"https://a"}), allows_credentials=True)


def test_a_policy_that_cannot_be_read_is_an_error() -> None:
    for wrong in ([], {"origins": "*"}, {"origins": ["*"], "credentials": "yes"}):
        with pytest.raises(RecordError):
            page_policy_of({"cors": wrong})
