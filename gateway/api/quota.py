"""How many functions an account may have: exactly so many, whoever registers at the same time.

A function that is being registered has a place reserved, in one document per account. Who reserves
counts the account's functions and the places of others, and writes on condition that the document
is still the one that was read: of two who take the last place, one is told to count again. Who
dies in between leaves a place that is free again after `RESERVED_S`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from gateway.domain.account import MAX_FUNCTIONS
from gateway.domain.catalog import Catalog
from gateway.domain.lifecycle import check_limit
from gateway.domain.ports import AccountStore
from gateway.errors import Conflict, StoreUnavailable

RESERVED_S = 60
"""Longer than registering takes; the store answers each call within seconds or not at all."""
_ATTEMPTS = 16
"""Against other processes: those of this one take turns."""


class Quotas:
    """Hands out places to one call of this process after the other."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def place(
        self, store: AccountStore, catalog: Catalog, function_id: str, now: float
    ) -> AsyncIterator[None]:
        """Keep a place for a new function while it is registered within the block.

        ``now`` is Unix seconds. Raises `BadRequest` when there is none, `Conflict`.
        """
        turn = self._turns.setdefault(store.account, asyncio.Lock())
        async with turn:
            await _reserve(store, catalog, function_id, int(now))
        try:
            yield
        finally:
            # If it fails, the place is kept for `RESERVED_S`, also when the function is deleted.
            with suppress(Conflict, StoreUnavailable):
                async with turn:
                    await _give_back(store, function_id)


async def _reserve(store: AccountStore, catalog: Catalog, function_id: str, now: int) -> None:
    record = catalog.model.account(store.account)
    limit = record.max_functions if record is not None else MAX_FUNCTIONS
    for _ in range(_ATTEMPTS):
        reserved, revision = await store.reserved()
        places = {one: until for one, until in reserved.items() if until > now}
        check_limit(len(catalog.function_ids(store.account) | places.keys()), limit)
        try:
            await store.reserve({**places, function_id: now + RESERVED_S}, revision)
        except Conflict:
            continue
        return
    raise Conflict


async def _give_back(store: AccountStore, function_id: str) -> None:
    for _ in range(_ATTEMPTS):
        reserved, revision = await store.reserved()
        places = {one: until for one, until in reserved.items() if one != function_id}
        try:
            await store.reserve(places, revision)
        except Conflict:
            continue
        return
