"""Whether the platform knows of this agent, and whether the queue can be reached."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from queueing.nats.connection import Connection as NatsConnection
from runtime.lifecycle import Lifecycle
from runtime.tasks import spawn
from worker_agent.registration import (
    ConnectError,
    HttpApi,
    Place,
    Registration,
    Status,
    Welcome,
)
from worker_agent.settings import WorkerSettings

LOST_AFTER_S = 5.0
"""A link to NATS that comes back sooner was a change of servers, not a loss."""


class Presence:
    """The agent at ``control.url``; without one it does nothing."""

    def __init__(
        self,
        settings: WorkerSettings,
        status: Callable[[], Status],
        asked: Callable[[int], object],
    ) -> None:
        """``status`` is told; ``asked`` gets the requests at a time that are asked of us."""
        self._settings = settings
        self._status = status
        self._asked = asked
        self._registration: Registration | None = None
        self._nats: NatsConnection | None = None
        self._lost_at: float | None = None
        self._has_been_connected = False
        self._clock = asyncio.get_running_loop().time

    @property
    def is_reachable(self) -> bool:
        """Whether requests can come to us."""
        if self._lost_at is not None:
            return self._clock() - self._lost_at < LOST_AFTER_S
        return self._has_been_connected

    @property
    def is_renewal_failing(self) -> bool:
        """Whether token and login could not be renewed when it was time."""
        return self._registration is not None and self._registration.is_renewal_failing

    async def begin(self, stack: AsyncExitStack, lifecycle: Lifecycle) -> Welcome | None:
        """Connect to the API, however long it takes; `None` when told to stop, or without one.

        Raises `ConnectError` when it does not want us.
        """
        control, settings = self._settings.control, self._settings
        if not control.url:
            return None
        if control.token is None or not settings.instance.id:
            raise ConnectError("control.url needs control.token and instance.id")
        api = HttpApi(control.url, control.timeout_s)
        stack.push_async_callback(api.close)
        place = Place(settings.instance.id, settings.function.id, settings.function.version_id)
        registration = Registration(
            api,
            place,
            control.token.get_secret_value(),
            self._status,
            self._renewed,
            self._asked,
        )
        connecting = spawn(_attempt(registration), "worker.connect")
        stopping = spawn(lifecycle.stopping.wait(), "worker.stopping")
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not connecting.done():
            connecting.cancel()
            return None
        welcome = connecting.result()
        if isinstance(welcome, ConnectError):
            raise welcome
        registration.start()
        stack.push_async_callback(registration.stop)
        self._registration = registration
        return welcome

    def follow(self, nats: NatsConnection) -> None:
        """``nats`` is our link to the queue; its login is renewed with ours."""
        self._nats = nats
        nats.add_listener(self)

    def credentials(self) -> tuple[str, str]:
        """Return JWT and seed as they are now."""
        if self._registration is None:
            raise AssertionError("there is no API to give them")
        return self._registration.credentials()

    def changed(self) -> None:
        """What `status` returns has changed."""
        if self._registration is not None:
            self._registration.changed()

    async def _renewed(self) -> None:
        if self._nats is not None and self._registration is not None:
            if self._registration.welcome.nats is not None:
                await self._nats.renew()

    # The link to NATS

    def connected(self) -> None:
        """Requests can come."""
        self._lost_at = None
        if not self._has_been_connected:
            self._has_been_connected = True
            self.changed()

    def disconnected(self) -> None:
        """None come until it is back; told with a later heartbeat, if it is not back by then."""
        self._lost_at = self._clock()

    def denied(self, subject: bytes) -> None:
        """Somebody else's business."""


async def _attempt(registration: Registration) -> Welcome | ConnectError:
    try:
        return await registration.connect()
    except ConnectError as error:
        return error
