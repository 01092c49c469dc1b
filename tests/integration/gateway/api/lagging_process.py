"""A second gateway process that receives the store's changes late."""

import asyncio

from tests.support.control import Client, ControlPlane


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
