"""Another process of the gateway, to which the store's changes come late."""

import asyncio

from tests.support.control import Client, ControlPlane


class Behind:
    """Another process of the gateway that is told nothing more by the store until `hear_soon`."""

    def __init__(self, plane: ControlPlane, hears: asyncio.Event) -> None:
        self._plane = plane
        self._hears = hears
        hears.clear()

    def client(self, client: Client) -> Client:
        """Return the client that calls this process with the same key."""
        return Client(self._plane.session, client.key)

    def hear_soon(self) -> None:
        """Go on after what is called next has begun."""
        asyncio.get_running_loop().call_later(0.2, self._hears.set)
