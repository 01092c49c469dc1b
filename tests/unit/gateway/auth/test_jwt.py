import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

from gateway.auth.jwt import Issuer, IssuerKeys, IssuerUnavailable, scopes_of
from gateway.errors import Unauthenticated
from tests.support.jwks import AUDIENCE, NAME, TokenIssuer


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer()


@pytest.fixture
def keys(issuer: TokenIssuer) -> IssuerKeys:
    keys = IssuerKeys(Issuer(NAME, (AUDIENCE, "other")))
    assert keys.replace(issuer.jwks) == 1
    return keys


def test_a_jwt_of_a_published_key_is_believed(issuer: TokenIssuer, keys: IssuerKeys) -> None:
    claims = keys.verify(issuer.token("bob", "list_functions"), issuer.kid)
    assert claims.members["sub"] == "bob"
    assert scopes_of(claims.members) == {"list_functions"}
    keys.verify(issuer.token(aud=["x", "other"]), issuer.kid)
    keys.verify(issuer.token(), None)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "somebody-else"},
        {"aud": None},
        {"exp": None},
        {"exp": "never"},
        {"iss": "https://else.where"},
        {"sub": None},
    ],
)
def test_issuer_audience_expiry_and_subject_are_required(
    issuer: TokenIssuer, keys: IssuerKeys, claims: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        keys.verify(issuer.token(**claims), issuer.kid)


def test_before_the_keys_are_read_nobody_is_blamed(issuer: TokenIssuer) -> None:
    keys = IssuerKeys(Issuer(NAME, (AUDIENCE,)))
    missed: list[bool] = []
    keys.on_unknown_key(lambda: missed.append(True))
    with pytest.raises(IssuerUnavailable):
        keys.verify(issuer.token(), issuer.kid)
    assert missed


def test_a_key_that_is_not_known_is_asked_for(issuer: TokenIssuer, keys: IssuerKeys) -> None:
    missed: list[bool] = []
    keys.on_unknown_key(lambda: missed.append(True))
    before = issuer.token()
    issuer.rotate()
    with pytest.raises(Unauthenticated):
        keys.verify(issuer.token(), issuer.kid)
    assert missed == [True]
    changes = keys.changes
    keys.replace(issuer.jwks)
    assert keys.changes == changes + 1
    keys.verify(issuer.token(), issuer.kid)
    with pytest.raises(Unauthenticated):
        keys.verify(before, jwt.get_unverified_header(before)["kid"])


def test_the_same_keys_again_change_nothing(issuer: TokenIssuer, keys: IssuerKeys) -> None:
    changes = keys.changes
    keys.replace(json.loads(json.dumps(issuer.jwks)))
    assert keys.changes == changes


def test_keys_that_are_not_for_signatures_do_not_count(
    issuer: TokenIssuer, keys: IssuerKeys
) -> None:
    (good,) = issuer.published
    secret = {"kty": "oct", "k": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE", "kid": "shared"}
    strange = {"kty": "XX", "kid": "strange"}
    broken = {**good, "x": "!", "kid": "broken"}
    encryption = {**good, "use": "enc", "kid": "enc"}
    count = keys.replace({"keys": [secret, strange, broken, encryption, "text", good]})
    assert count == 1
    shared = jwt.encode(
        {"iss": NAME, "aud": AUDIENCE, "sub": "s", "exp": 2_000_000_000},
        b"A" * 32,
        "HS256",
        headers={"kid": "shared"},
    )
    with pytest.raises(Unauthenticated):
        keys.verify(shared, "shared")


@pytest.mark.parametrize("jwks", [None, [], {}, {"keys": {}}, {"keys": []}, {"keys": [1]}])
def test_what_is_no_set_of_keys_leaves_the_one_before(
    issuer: TokenIssuer, keys: IssuerKeys, jwks: object
) -> None:
    with pytest.raises(ValueError, match="JWK Set"):
        keys.replace(jwks)
    keys.verify(issuer.token(), issuer.kid)


def test_rsa_keys_count_and_do_not_sign_by_another_method() -> None:
    key = generate_private_key(65537, 2048)
    described = {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": "rsa"}
    keys = IssuerKeys(Issuer(NAME, (AUDIENCE,)))
    keys.replace({"keys": [described]})
    claims = {"iss": NAME, "aud": AUDIENCE, "sub": "s", "exp": 2_000_000_000}
    keys.verify(jwt.encode(claims, key, "RS256"), "rsa")
    with pytest.raises(Unauthenticated):
        keys.verify(jwt.encode(claims, key, "PS256"), "rsa")


def test_scopes_are_a_list_of_texts_and_never_the_gateways_own() -> None:
    assert scopes_of({"scopes": "list_functions"}) == frozenset()
    assert scopes_of({}) == frozenset()
    assert scopes_of({"scopes": ["a", 1, "bootstrap", "worker"]}) == {"a"}


def test_an_issuer_without_an_audience_takes_anybodys_tokens_and_is_refused() -> None:
    with pytest.raises(ValueError, match="audience"):
        Issuer(NAME, ())
