import base64
import json

import jwt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.signing import (
    ISSUER,
    TokenSigner,
    VerificationKeys,
    derive_key,
    fingerprint,
    read_unverified,
    verify_token,
)
from gateway.domain.model import RecordError
from gateway.errors import Unauthenticated

MASTER = bytes(range(32))
SIGNER = TokenSigner(MASTER)
OTHER = TokenSigner(bytes(32))
CLAIMS: dict[str, object] = {"sub": "s", "aud": "a", "exp": 2_000_000_000}


def published(signer: TokenSigner) -> tuple[str, bytes]:
    return f"signing.{signer.kid}", orjson.dumps(signer.document("2026-01-01T00:00:00Z"))


def kid_of(token: str) -> object:
    return read_unverified(token)[0]["kid"]


def test_every_purpose_has_its_own_key_and_every_master_other_ones() -> None:
    keys = {derive_key(MASTER, "a"), derive_key(MASTER, "b"), derive_key(bytes(32), "a")}
    assert len(keys) == 3
    assert fingerprint(MASTER) != fingerprint(bytes(32))
    assert fingerprint(MASTER) == fingerprint(bytes(range(32)))


def test_who_knows_the_public_half_believes_the_token() -> None:
    signers = VerificationKeys()
    token = SIGNER.sign(CLAIMS)
    with pytest.raises(Unauthenticated):
        signers.verify(token, SIGNER.kid, ["a"])
    signers.apply(*published(SIGNER))
    claims = signers.verify(token, kid_of(token), ["a"])
    assert claims.members["iss"] == ISSUER
    assert (claims.not_before, claims.expires_at) == (0, 2_000_000_000)


def test_a_key_that_is_withdrawn_counts_no_more_but_the_own_one_does() -> None:
    signers = VerificationKeys(SIGNER)
    signers.apply(*published(OTHER))
    before = signers.changes
    for signer in (SIGNER, OTHER):
        signers.apply(published(signer)[0], None)
    assert signers.changes > before
    signers.verify(SIGNER.sign(CLAIMS), SIGNER.kid, ["a"])
    with pytest.raises(Unauthenticated):
        signers.verify(OTHER.sign(CLAIMS), OTHER.kid, ["a"])


def test_a_key_under_anothers_name_is_refused() -> None:
    signers = VerificationKeys()
    with pytest.raises(RecordError):
        signers.apply(published(SIGNER)[0], published(OTHER)[1])
    with pytest.raises(RecordError):
        signers.apply(published(SIGNER)[0], b'{"schema":1,"public":"bm8="}')
    signers.apply("leader", b"anything")
    with pytest.raises(Unauthenticated):
        signers.verify(OTHER.sign(CLAIMS), SIGNER.kid, ["a"])


@pytest.mark.parametrize(
    "claims",
    [
        {**CLAIMS, "aud": "b"},
        {**CLAIMS, "iss": "https://else.where"},
        {**CLAIMS, "exp": "2000000000"},
        {**CLAIMS, "exp": True},
        {**CLAIMS, "exp": float("nan")},
        {**CLAIMS, "exp": float("inf")},
        {**CLAIMS, "nbf": "soon"},
        {"sub": "s", "aud": "a"},
        {"sub": "s", "exp": 2_000_000_000},
        {"aud": "a", "exp": 2_000_000_000},
        {**CLAIMS, "sub": 7},
    ],
)
def test_a_signature_is_not_all(claims: dict[str, object]) -> None:
    token = SIGNER.sign(claims)
    with pytest.raises(Unauthenticated):
        VerificationKeys(SIGNER).verify(token, SIGNER.kid, ["a"])


def test_a_changed_token_and_one_without_a_signature_are_refused() -> None:
    header, payload, signature = SIGNER.sign(CLAIMS).split(".")
    more = (
        base64.urlsafe_b64encode(json.dumps({**CLAIMS, "iss": ISSUER, "sub": "else"}).encode())
        .rstrip(b"=")
        .decode()
    )
    unsigned = jwt.encode({"iss": ISSUER, **CLAIMS}, "", "none", headers={"kid": SIGNER.kid})
    for token in (f"{header}.{more}.{signature}", f"{header}.{payload}.", unsigned):
        with pytest.raises(Unauthenticated):
            VerificationKeys(SIGNER).verify(token, SIGNER.kid, ["a"])


def test_the_public_half_is_no_secret_to_sign_with() -> None:
    """The key determines the algorithm, not the token (RFC 8725 §2.1)."""
    forged = jwt.encode({"iss": ISSUER, **CLAIMS}, SIGNER.public, "HS256")
    with pytest.raises(Unauthenticated):
        VerificationKeys(SIGNER).verify(forged, SIGNER.kid, ["a"])


def nested(depth: int) -> str:
    encoded = base64.urlsafe_b64encode(b"[" * depth).rstrip(b"=").decode()
    return f"{encoded}.{encoded}.AA"


@given(st.text(max_size=200) | st.builds(nested, st.integers(1, 3000)))
def test_whatever_is_sent_is_refused_in_one_way(text: str) -> None:
    with pytest.raises(Unauthenticated):
        read_unverified(text)
    with pytest.raises(Unauthenticated):
        verify_token(text, OTHER, ["EdDSA"], ISSUER, ["a"])


def test_a_token_that_is_too_long_is_not_even_parsed() -> None:
    with pytest.raises(Unauthenticated):
        read_unverified(SIGNER.sign({**CLAIMS, "x": "x" * 8192}))
