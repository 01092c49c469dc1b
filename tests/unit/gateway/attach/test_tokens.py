"""The tokens of attach calls."""

import pytest

from gateway.attach.tokens import Tokens, is_authorized

TOKEN = "0b1c2d3e-0000-4000-8000-00000000abcd"


@pytest.mark.parametrize("form", [b"Bearer %b", b"bearer %b", b"BEARER %b"])
def test_a_token_works_once_whatever_the_case_of_the_scheme(form: bytes) -> None:
    tokens: Tokens[str] = Tokens()
    tokens.issue(TOKEN, "owner")
    assert tokens.redeem(form % TOKEN.encode()) == "owner"
    assert tokens.redeem(form % TOKEN.encode()) is None
    assert len(tokens) == 0


def test_a_token_in_upper_case_is_the_same_uuid() -> None:
    tokens: Tokens[str] = Tokens()
    tokens.issue(TOKEN, "owner")
    assert tokens.redeem(b"Bearer " + TOKEN.upper().encode()) == "owner"


@pytest.mark.parametrize("value", [b"", b"Bearer ", TOKEN.encode(), b"Basic  " + TOKEN.encode()])
def test_what_is_no_bearer_token_uses_nothing_up(value: bytes) -> None:
    tokens: Tokens[str] = Tokens()
    tokens.issue(TOKEN, "owner")
    assert tokens.redeem(value) is None
    assert len(tokens) == 1


def test_a_revoked_token_is_worth_nothing() -> None:
    tokens: Tokens[str] = Tokens()
    tokens.issue(TOKEN, "owner")
    tokens.revoke(TOKEN)
    tokens.revoke(TOKEN)
    assert tokens.redeem(b"Bearer " + TOKEN.encode()) is None


@pytest.mark.parametrize("form", [b"Bearer %b", b"bearer %b"])
def test_looking_up_the_owner_leaves_the_token_valid(form: bytes) -> None:
    tokens: Tokens[str] = Tokens()
    tokens.issue(TOKEN, "owner")
    assert tokens.owner_of(form % TOKEN.encode()) == "owner"
    assert tokens.owner_of(form % TOKEN.upper().encode()) == "owner"
    assert tokens.owner_of(b"Basic  " + TOKEN.encode()) is None
    assert len(tokens) == 1


def test_one_known_token_is_compared_as_the_table_does() -> None:
    for form in (b"Bearer %b", b"bearer %b"):
        assert is_authorized(form % TOKEN.encode(), TOKEN)
        assert is_authorized(form % TOKEN.upper().encode(), TOKEN)
    for value in (b"", b"Bearer ", TOKEN.encode(), b"Bearer " + TOKEN[:-1].encode() + b"e"):
        assert not is_authorized(value, TOKEN)
