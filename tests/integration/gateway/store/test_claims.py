"""Claims, of which one of several callers gets each, in every backend of the store."""

import asyncio

import pytest

from gateway.errors import Conflict, TooManyKeys
from gateway.store.interface import ClaimStore
from tests.support.followed_store import opened
from tests.support.store_servers import StoreServer
from tests.support.waiting import until


async def test_one_of_many_gets_a_claim_and_it_outlives_the_server(
    each_store_server: StoreServer,
) -> None:
    url = each_store_server.url
    async with opened(url) as one, opened(url) as other:
        first, second = one.claims(60, 100), other.claims(60, 100)
        assert await first.read("acct", "k") is None
        made = await asyncio.gather(
            *(claims.make("acct", "k", b"%d" % i) for i, claims in enumerate([first, second] * 4)),
            return_exceptions=True,
        )
        revisions = [value for value in made if isinstance(value, int)]
        assert len(revisions) == 1
        assert all(isinstance(value, (int, Conflict)) for value in made)
        winner = b"%d" % made.index(revisions[0])
        assert await second.read("acct", "k") == (winner, revisions[0])
        # Another account's claim of the same name is another one.
        assert await second.make("Ünlike.acct", "k", b"x") > 0
        assert await first.read("Ünlike.acct", "k") is not None
    await each_store_server.kill()
    await each_store_server.start()
    async with opened(url) as store:
        assert await store.claims(60, 100).read("acct", "k") == (winner, revisions[0])


async def test_a_released_claim_can_be_made_anew_and_no_other_is_lost(
    store_server: StoreServer,
) -> None:
    async with opened(store_server.url) as store:
        claims = store.claims(60, 2)
        kept = await claims.make("acct", "kept", b"1")
        revision = await claims.make("acct", "k", b"1")
        with pytest.raises(TooManyKeys):
            await claims.make("acct", "more", b"1")
        await claims.release("acct", "k", revision + 1000)
        assert await claims.read("acct", "k") == (b"1", revision)
        await claims.release("acct", "k", revision)
        assert await claims.read("acct", "k") is None
        again = await claims.make("acct", "k", b"2")
        assert again > revision
        await claims.release("acct", "k", revision)
        assert await claims.read("acct", "k") == (b"2", again)
        assert await claims.read("acct", "kept") == (b"1", kept)


async def test_claims_expire_and_make_room(store_server: StoreServer) -> None:
    async with opened(store_server.url) as store:
        claims = store.claims(1, 1)
        await claims.make("acct", "old", b"1")
        await until_made(claims, "new")
        assert await claims.read("acct", "old") is None


async def until_made(claims: ClaimStore, name: str) -> None:
    """Make a claim as soon as there is room."""

    async def make() -> bool:
        try:
            await claims.make("acct", name, b"1")
        except TooManyKeys:
            return False
        return True

    await until(make, bool, what="room")
