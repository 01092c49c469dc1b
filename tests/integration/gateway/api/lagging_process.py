"""A second gateway process that receives the store's changes late."""

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.store.interface import Entry, Feed
from gateway.store.open import make_store
from gateway.store.options import StoreOptions
from gateway.store.records import Store
from tests.support.control import Client, ControlPlane


class Hearing:
    """Holds back what feeds deliver while it is off, and delivers it when it is on again."""

    def __init__(self) -> None:
        self._is_on = True
        self._held: list[Callable[[], None]] = []

    def store_at(self, options: StoreOptions) -> Store:
        """Return a store whose feeds are heard like this."""
        store = make_store(options)
        feed_of = store.feed

        def feed(
            bucket: str, on_entry: Callable[[Entry], None], on_loaded: Callable[[int], None]
        ) -> Feed:
            return feed_of(
                bucket,
                lambda entry: self._pass_on(on_entry, entry),
                lambda revision: self._pass_on(on_loaded, revision),
            )

        store.feed = feed  # type: ignore[method-assign]
        return store

    def stop(self) -> None:
        self._is_on = False

    def resume(self) -> None:
        self._is_on = True
        held, self._held = self._held, []
        for deliver in held:
            deliver()

    def _pass_on(self, deliver: Callable[[Any], None], what: Any) -> None:
        if self._is_on:
            deliver(what)
        else:
            self._held.append(lambda: deliver(what))


class Behind:
    """A second gateway process that receives no changes of the store until `hear_soon`."""

    def __init__(self, plane: ControlPlane, hearing: Hearing) -> None:
        self._plane = plane
        self._hearing = hearing
        hearing.stop()

    def client(self, client: Client) -> Client:
        """Return a client that calls this process with the same key."""
        return Client(self._plane.session, client.key)

    def hear_soon(self) -> None:
        """Deliver the changes shortly after the next call has begun."""
        asyncio.get_running_loop().call_later(0.2, self._hearing.resume)
