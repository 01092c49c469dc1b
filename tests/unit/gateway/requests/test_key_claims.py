"""Claims of keys by calls, at a store in memory."""

import asyncio

import pytest

from gateway.errors import StoreUnavailable, TooManyKeys
from gateway.requests.idempotency import ClaimPosition, KeyClaim
from gateway.requests.key_claims import KeyClaims, claim_age_s
from runtime.tasks import spawn
from tests.support.stored_claims import StoredClaims
from tests.support.waiting import until
from wire.deadlines import MAX_INVOCATION_S

POSITION = ClaimPosition("acct", "k")
FIRST = KeyClaim("33333333-3333-4333-8333-333333330001", "f")
OTHER = KeyClaim("33333333-3333-4333-8333-333333330002", "")


async def test_one_call_gets_a_key_and_the_others_are_told_which() -> None:
    store = StoredClaims()
    one, other = KeyClaims(store), KeyClaims(store)
    assert await one.claim(POSITION, FIRST) is None
    assert await other.claim(POSITION, OTHER) == FIRST
    assert await other.find(POSITION) == FIRST
    assert not one.is_released(FIRST.request_id)


def test_a_claim_outlives_the_longest_call_however_short_responses_are_kept() -> None:
    assert claim_age_s(60.0) > MAX_INVOCATION_S
    assert claim_age_s(86_400.0) == 86_400.0


async def test_a_key_of_a_call_that_did_not_run_can_be_claimed_anew() -> None:
    store = StoredClaims()
    claims = KeyClaims(store)
    await claims.claim(POSITION, FIRST)
    claims.release(POSITION, FIRST.request_id)
    assert claims.is_released(FIRST.request_id)
    await until(lambda: not store.documents, what="the release")
    assert await claims.claim(POSITION, OTHER) is None
    # Whoever still has it from the first call releases nothing of the second.
    await claims.release_of(POSITION, FIRST.request_id)
    assert await claims.find(POSITION) == OTHER


async def test_a_claim_of_which_nobody_was_told_is_released() -> None:
    store = StoredClaims()
    store.loses_replies = True
    claims = KeyClaims(store)
    with pytest.raises(StoreUnavailable):
        await claims.claim(POSITION, FIRST)
    assert claims.is_released(FIRST.request_id)
    await until(lambda: not store.documents, what="the release")


async def test_a_client_that_leaves_meanwhile_claims_nothing() -> None:
    store = StoredClaims()
    store.answers.clear()
    claims = KeyClaims(store)
    claiming = spawn(claims.claim(POSITION, FIRST), "claim")
    await asyncio.sleep(0)
    claiming.cancel()
    store.answers.set()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert claims.is_released(FIRST.request_id)


async def test_an_account_that_has_too_many_keys_is_told_so_and_nothing_is_claimed() -> None:
    store = StoredClaims()
    store.limit = 0
    with pytest.raises(TooManyKeys):
        await KeyClaims(store).claim(POSITION, FIRST)
    assert not store.documents
