"""A second gateway process that receives the store's changes late."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.options import NatsOptions
from tests.support.control import Client, ControlPlane


class LateConnection(NatsStoreConnection):
    """The store's connection of a process; its feeds get messages only while ``hears`` is set."""

    def __init__(self, options: NatsOptions, hears: asyncio.Event) -> None:
        super().__init__(options)
        self._hears = hears

    async def client(self) -> NatsClient:
        return cast(NatsClient, LateClient(await super().client(), self._hears))


class LateClient:
    """A NATS client that passes messages to a callback only while ``hears`` is set."""

    def __init__(self, client: NatsClient, hears: asyncio.Event) -> None:
        self._client = client
        self._hears = hears

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def subscribe(self, subject: str, cb: Callable[[Msg], Awaitable[None]]) -> Subscription:
        async def receive(message: Msg) -> None:
            await self._hears.wait()
            await cb(message)

        return await self._client.subscribe(subject, cb=receive)


class Behind:
    """A second gateway process that receives no changes of the store until `hear_soon`."""

    def __init__(self, plane: ControlPlane, hears: asyncio.Event) -> None:
        self._plane = plane
        self._hears = hears
        hears.clear()

    def client(self, client: Client) -> Client:
        """Return a client that calls this process with the same key."""
        return Client(self._plane.session, client.key)

    def hear_soon(self) -> None:
        """Deliver the changes shortly after the next call has begun."""
        asyncio.get_running_loop().call_later(0.2, self._hears.set)
