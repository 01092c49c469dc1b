"""The limit of functions per account, exact under concurrent registrations.

While a function is being registered, a slot is reserved for it in one document per account. A
reservation counts the account's functions and the other reservations, and is written by
compare-and-set: of two calls that reserve the last slot, one counts again. The slot of a process
that dies in between is free again after `RESERVED_S`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from gateway.domain.account import MAX_FUNCTIONS
from gateway.domain.catalog import Catalog
from gateway.domain.compare_and_set import compare_and_set
from gateway.domain.lifecycle import check_limit
from gateway.domain.ports import AccountStore
from gateway.errors import Conflict, StoreUnavailable

RESERVED_S = 60
"""Longer than a registration takes: each call to the store ends or fails within seconds."""


class Quotas:
    """Reserves slots. Calls of this process for the same account take turns."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def reserve(
        self, store: AccountStore, catalog: Catalog, function_id: str, now: float
    ) -> AsyncIterator[None]:
        """Reserve a slot for a new function; the block registers the function.

        ``now`` is Unix seconds. Raises `BadRequest` if there is no free slot, and `Conflict`.
        """
        turn = self._turns.setdefault(store.account, asyncio.Lock())
        async with turn:
            await _reserve(store, catalog, function_id, int(now))
        try:
            yield
        finally:
            # If the release fails, the slot stays reserved for `RESERVED_S`, also if the function
            # is deleted.
            with suppress(Conflict, StoreUnavailable):
                async with turn:
                    await _release(store, function_id)


async def _reserve(store: AccountStore, catalog: Catalog, function_id: str, now: int) -> None:
    record = catalog.model.account(store.account)
    limit = record.max_functions if record is not None else MAX_FUNCTIONS

    def add_slot(reserved: Mapping[str, int]) -> Mapping[str, int]:
        slots = {id_: until for id_, until in reserved.items() if until > now}
        check_limit(len(catalog.function_ids(store.account) | slots.keys()), limit)
        return {**slots, function_id: now + RESERVED_S}

    await compare_and_set(store.reservations, add_slot, store.put_reservations)


async def _release(store: AccountStore, function_id: str) -> None:
    def remove_slot(reserved: Mapping[str, int]) -> Mapping[str, int]:
        return {id_: until for id_, until in reserved.items() if id_ != function_id}

    await compare_and_set(store.reservations, remove_slot, store.put_reservations)
