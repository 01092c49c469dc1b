from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.keys import digest_of, is_key, new_key
from gateway.domain.model import ApiKey
from gateway.domain.principal import Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import Unauthenticated
from tests.support.api_keys import key_authenticator

NOW = 1_800_000_000.0
SECRET = new_key(bytes(range(32)))
KEY = ApiKey("id", digest_of(SECRET.encode()), "account", "subject", frozenset({"invoke_function"}))
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def model_with(key: ApiKey) -> ReadModel:
    model = ReadModel()
    model.apply(key)
    return model


def authenticate(model: ReadModel, authorization: bytes | None, now: float) -> Principal:
    return key_authenticator(model).authenticate(authorization, now)


def bearer(secret: str) -> bytes:
    return b"Bearer " + secret.encode()


@given(st.binary(min_size=32, max_size=32))
def test_a_new_key_has_the_form_that_everybody_expects(random32: bytes) -> None:
    key = new_key(random32)
    assert key.startswith("nvapi-")
    assert len(key) == 6 + 43 + 6
    assert set(key[6:]) <= set(BASE64URL)
    assert is_key(key.encode())


@given(st.integers(6, 54), st.sampled_from(BASE64URL))
def test_one_mistyped_character_is_noticed_without_a_look_up(at: int, character: str) -> None:
    typed = SECRET[:at] + character + SECRET[at + 1 :]
    assert is_key(typed.encode()) is (typed == SECRET)


def test_too_little_randomness_makes_no_key() -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        new_key(b"short")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_known_key_tells_account_and_subject(scheme: str) -> None:
    found = key_authenticator(model_with(KEY)).authenticate(f"{scheme} {SECRET}".encode(), NOW)
    assert found == Principal(
        *("account", "subject", KEY.scopes, KEY.reach, "key", KEY.digest), key_id=KEY.key_id
    )


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        SECRET.encode(),
        b"Basic " + SECRET.encode(),
        b"Bearer " + SECRET.encode() + b" ",
        b"Bearer " + SECRET.encode() + b", Bearer x",
        b"Bearer\t" + SECRET.encode(),
        b"Bearer \xff\xfe",
        bearer(SECRET[:-1]),
        bearer(SECRET + "A"),
        bearer(SECRET.upper()),
        bearer(new_key(bytes(32))),
    ],
)
def test_a_missing_malformed_or_unknown_key_gets_one_and_the_same_answer(
    authorization: bytes | None,
) -> None:
    with pytest.raises(Unauthenticated) as raised:
        key_authenticator(model_with(KEY)).authenticate(authorization, NOW)
    assert raised.value.detail == Unauthenticated().detail
    assert raised.value.headers == [(b"www-authenticate", b"Bearer")]


def test_a_revoked_key_gets_that_answer_too() -> None:
    model = model_with(KEY)
    model.apply(replace(KEY, is_revoked=True))
    with pytest.raises(Unauthenticated) as raised:
        key_authenticator(model).authenticate(bearer(SECRET), NOW)
    assert raised.value.detail == Unauthenticated().detail


def test_a_key_works_until_the_second_it_expires_in() -> None:
    model = model_with(replace(KEY, expires_at=int(NOW)))
    assert key_authenticator(model).authenticate(bearer(SECRET), NOW - 0.001).account == "account"
    with pytest.raises(Unauthenticated) as raised:
        key_authenticator(model).authenticate(bearer(SECRET), NOW)
    assert raised.value.detail == Unauthenticated().detail


@given(st.binary(max_size=80))
def test_no_header_value_does_anything_but_fail_to_authenticate(value: bytes) -> None:
    with pytest.raises(Unauthenticated):
        key_authenticator(model_with(KEY)).authenticate(value, NOW)
