"""Leader election in a real store: one candidate leads, and another takes over in time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.provision.leader_election import TTL_S, LeaderLease, LeaseStore
from gateway.store.names import META
from gateway.store.records import Store
from tests.support.followed_store import opened
from tests.support.store_servers import StoreServer, store_server
from tests.support.waiting import until

__all__ = ["store_server"]

TAKEOVER_S = 10.0
SHORT_S = 1.0


@pytest.fixture
async def store(store_server: StoreServer) -> AsyncIterator[Store]:
    async with opened(store_server.url) as store:
        await store.prepare(META)
        yield store


class MortalStore:
    """The store of a process whose writes never return once it ``is_dead``."""

    def __init__(self, store: Store) -> None:
        self.is_dead = False
        self.get_raw = store.get_raw
        self.delete_raw = store.delete_raw
        self._store = store

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int:
        if self.is_dead:
            await asyncio.Event().wait()
        return await self._store.put_raw(bucket, name, data, revision)


class Candidate:
    def __init__(self, store: LeaseStore, name: str, ttl_s: float = SHORT_S) -> None:
        self.changes: asyncio.Queue[tuple[bool, str]] = asyncio.Queue()
        self.lease = LeaderLease(store, name, self._changed, ttl_s)
        self.lease.start()

    def _changed(self) -> None:
        self.changes.put_nowait((self.lease.is_held, self.lease.holder))

    async def until(self, is_held: bool, holder: str, timeout_s: float = TAKEOVER_S) -> None:
        await until(
            self.changes.get,
            lambda change: change == (is_held, holder),
            what=f"(is_held, holder) to be {(is_held, holder)}",
            timeout_s=timeout_s,
        )


async def test_of_two_candidates_one_leads_and_the_other_knows_it(store: Store) -> None:
    first = Candidate(store, "first")
    await first.until(True, "first")
    second = Candidate(store, "second")
    await second.until(False, "first")
    assert second.lease.is_held_by_other
    assert not first.lease.is_held_by_other
    await first.lease.stop()
    await second.until(True, "second")
    assert not first.lease.is_held
    await second.lease.stop()


async def test_a_dead_leader_is_replaced_within_ten_seconds(store: Store) -> None:
    mortal = MortalStore(store)
    first = Candidate(mortal, "first", TTL_S)
    await first.until(True, "first")
    second = Candidate(store, "second", TTL_S)
    await second.until(False, "first")
    mortal.is_dead = True
    await second.until(True, "second", TAKEOVER_S)
    assert not first.lease.is_held
    await first.lease.stop()
    await second.lease.stop()


async def test_a_leader_without_a_store_stops_leading_until_it_is_back(
    store: Store, store_server: StoreServer
) -> None:
    first = Candidate(store, "first")
    await first.until(True, "first")
    store_server.pause()
    await first.until(False, "first")
    store_server.resume()
    await first.until(True, "first")
    await first.lease.stop()
