"""The worker's heartbeats to the platform, and its connection to the queue's broker."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from queueing.interface import WorkerBroker
from queueing.open import read_worker_login
from runtime.lifecycle import Lifecycle
from runtime.tasks import spawn
from worker_agent.registration import (
    ConnectError,
    ConnectResult,
    HttpApi,
    InstanceRef,
    Registration,
    Status,
)
from worker_agent.settings import WorkerSettings

LOST_AFTER_S = 5.0
"""A connection to the broker that is back sooner was a change of servers, not a loss."""


class Heartbeat:
    """The registration at ``control.url``; without that setting it does nothing.

    A `worker_agent.registration.Worker` and a `queueing.interface.LoginListener`.
    """

    needs_health = False
    """It registers while the inference server loads: the platform waits for it."""

    def __init__(
        self,
        settings: WorkerSettings,
        status: Callable[[], Status],
        concurrency_requested: Callable[[int], None],
        stop_requested: Callable[[str], None],
        *,
        facts: Mapping[str, object] | None = None,
        registration_token: str = "",
    ) -> None:
        """``status`` returns the content of the next heartbeat.

        ``concurrency_requested`` is called with the requests to process at a time,
        ``stop_requested`` with the reason why the platform tells the worker to stop. ``facts`` are
        what the worker tells of itself, ``registration_token`` is what it came with.
        """
        self._facts = facts
        self._registration_token = registration_token
        self._settings = settings
        self.status = status
        self.concurrency_requested = concurrency_requested
        self.stop_requested = stop_requested
        self._registration: Registration | None = None
        self._broker: WorkerBroker | None = None
        self._lost_at: float | None = None
        self._has_been_connected = False
        self._clock = asyncio.get_running_loop().time

    @property
    def is_reachable(self) -> bool:
        """Whether requests can reach this worker through the broker."""
        if self._lost_at is not None:
            return self._clock() - self._lost_at < LOST_AFTER_S
        return self._has_been_connected

    @property
    def is_renewal_failing(self) -> bool:
        """Whether the latest attempt to renew token and login failed."""
        return self._registration is not None and self._registration.is_renewal_failing

    async def begin(self, stack: AsyncExitStack, lifecycle: Lifecycle) -> ConnectResult | None:
        """Connect to the API, without a limit of time.

        Returns `None` after the stop signal, or without an API. Raises `ConnectError` when the API
        refuses this worker.
        """
        control, settings = self._settings.control, self._settings
        if not control.url:
            return None
        if control.token is None or not settings.instance.id:
            raise ConnectError("control.url needs control.token and instance.id")
        api = HttpApi(control.url, control.timeout_s)
        stack.callback(api.close)
        registration = Registration(
            api,
            InstanceRef(
                settings.instance.id,
                settings.function.id,
                settings.function.version_id,
                self._facts,
                self._registration_token,
            ),
            control.token.get_secret_value(),
            self,
            read_worker_login,
        )
        connecting = spawn(_attempt(registration), "worker.connect")
        stopping = spawn(lifecycle.stopping.wait(), "worker.stopping")
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not connecting.done():
            connecting.cancel()
            return None
        response = connecting.result()
        if isinstance(response, ConnectError):
            raise response
        registration.start()
        stack.push_async_callback(registration.stop)
        self._registration = registration
        return response

    def follow(self, broker: WorkerBroker) -> None:
        """Report losses of this broker's connection, and renew its login with the token."""
        self._broker = broker
        broker.add_listener(self)

    def login(self) -> object | None:
        """Return the present login for the broker, `None` when the API gives none."""
        return self._registration.response.login if self._registration is not None else None

    def changed(self) -> None:
        """Send a heartbeat at once: the status has changed."""
        if self._registration is not None:
            self._registration.changed()

    async def login_renewed(self) -> None:
        """Log in to the broker again."""
        if self._broker is not None and self.login() is not None:
            await self._broker.renew()

    # LoginListener

    def connected(self) -> None:
        """Requests can arrive; the first time is reported at once."""
        self._lost_at = None
        if not self._has_been_connected:
            self._has_been_connected = True
            self.changed()

    def disconnected(self) -> None:
        """No requests can arrive; a later heartbeat reports it if that does not change soon."""
        self._lost_at = self._clock()

    def refused(self) -> None:
        """The broker has lost the login, or it ended while the API was away."""
        if self._registration is not None:
            self._registration.renew_soon()


async def _attempt(registration: Registration) -> ConnectResult | ConnectError:
    try:
        return await registration.connect()
    except ConnectError as error:
        return error
