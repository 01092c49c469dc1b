"""The agent as a worker of NVIDIA's control plane: ConnectOnce in place of connect and heartbeats.

    wait for the inference server ─▶ ConnectOnce ─▶ region, token ─▶ log in to NATS, pull
                                        ▲    │
                                        └────┘ every 20 to 30 minutes, or before the token ends

The control plane does not ask how the worker is, and cannot tell it to stop but by refusing it. A
worker that is refused for `REFUSED_S` drains and exits; one whose control plane cannot be reached
goes on with what it has, and tries again. The token is the login for NATS as well, and is kept in a
file for the next start (`worker_agent.nvcf.token_file`).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from queueing.interface import WorkerBroker
from queueing.open import callout_login
from runtime.events import emit
from runtime.lifecycle import Lifecycle
from runtime.tasks import spawn
from worker_agent.nvcf.calls import NvcfCallError, NvcfCalls, NvcfSession, WorkerIds
from worker_agent.nvcf.objects import NvcfObjectUrls
from worker_agent.nvcf.statements import keep_statement
from worker_agent.nvcf.token_file import read_token, write_token
from worker_agent.registration import ConnectError, ConnectResult, spread
from worker_agent.settings import WorkerSettings

SECRETS_FILE = "jwt.token"
REFUSED_S = 300.0
"""For so long a refused worker tries again: its version may be about to become active."""
_RETRY_MIN_S = 0.5
_RETRY_MAX_S = 30.0
_AGAIN_S = (1200.0, 1800.0)
_OF_LIFE = 0.9
_LEAST_S = 1.0
_SKEW_S = 2.0
"""The least that is left of a token, so that clocks may differ."""

_log = logging.getLogger("worker.nvcf")


class NvcfMembership:
    """Registers, and keeps region, token and statements. A `queueing.interface.LoginListener`.

    `begin` is called when the inference server is healthy: the control plane takes a worker that
    has called for one that pulls.
    """

    needs_health = True
    is_reachable = True
    """The control plane is not told."""

    def __init__(
        self,
        settings: WorkerSettings,
        stop_requested: Callable[[str], None],
        refused_s: float = REFUSED_S,
    ) -> None:
        """``stop_requested`` is called with the reason why the worker is to drain and exit.

        That is so when it was refused for ``refused_s``.
        """
        self._refused_s = refused_s
        nvcf, token = settings.nvcf, settings.nats.worker_token
        self._settings = settings
        self._stop_requested = stop_requested
        self._given = "" if token is None else token.get_secret_value()
        self._folder = nvcf.shared_folder
        kept = read_token(self._folder, time.time())
        self._token = kept or self._given
        self._broker: WorkerBroker | None = None
        self._loop = asyncio.get_running_loop()
        ids = WorkerIds(settings.instance.id, settings.function.id, settings.function.version_id)
        self._calls = NvcfCalls(nvcf.control_url, ids, lambda: self._token, nvcf.ca_file)
        self.objects = NvcfObjectUrls(self._calls)
        """What requests ask of the control plane."""
        self.is_renewal_failing = False
        """Whether the latest ConnectOnce failed."""

    async def begin(self, stack: AsyncExitStack, lifecycle: Lifecycle) -> ConnectResult | None:
        """Connect; without a limit of time if nobody refuses it. `None` after the stop signal.

        Raises `ConnectError` when the worker was refused for `REFUSED_S`.
        """
        stack.push_async_callback(self._calls.close)
        connecting = spawn(self._connect_first(), "nvcf.connect")
        stopping = spawn(lifecycle.stopping.wait(), "worker.stopping")
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not connecting.done():
            connecting.cancel()
            return None
        found = connecting.result()
        if isinstance(found, NvcfCallError):
            raise ConnectError(str(found))
        self._start(stack, found)
        return ConnectResult(
            region=found.region,
            login=self.login(),
            token=found.token,
            expires_s=found.expires_at - time.time(),
            lease_s=0.0,
        )

    def follow(self, broker: WorkerBroker) -> None:
        """Log in with each new token."""
        self._broker = broker
        broker.add_listener(self)

    def login(self) -> object | None:
        """Return the login for NATS; `None` when the settings have another one."""
        nats = self._settings.nats
        if nats.credentials_file is not None or nats.nkey_seed is not None:
            return None
        return callout_login(self._token)

    def changed(self) -> None:
        """Nothing: the control plane is not told how the worker is."""

    # LoginListener

    def connected(self) -> None:
        """Nothing: the consumer binds by itself."""

    def disconnected(self) -> None:
        """Nothing: the consumer waits."""

    def refused(self) -> None:
        """Nothing: the next login has the token of that moment."""

    async def _connect_first(self) -> NvcfSession | NvcfCallError:
        """Connect, with the token of the file or, if that is refused, of the environment."""
        attempts = _Attempts(self._loop.time, self._refused_s)
        while True:
            try:
                session = await self._connect()
                await self._calls.provision(session.region)
            except NvcfCallError as error:
                emit(_log, "nvcf.away", logging.WARNING, error=str(error))
                if error.is_refusal:
                    self._token = self._given or self._token
                if attempts.is_last(error):
                    return error
            else:
                if session.other_regions:
                    regions = ",".join(session.other_regions)
                    emit(_log, "nvcf.other_regions", logging.WARNING, regions=regions)
                return session
            await attempts.pause()

    async def _keep_connected(self, session: NvcfSession) -> None:
        region = session.region
        while True:
            await asyncio.sleep(next_connect_s(session.expires_at - time.time(), _chance()))
            attempts = _Attempts(self._loop.time, self._refused_s)
            while (found := await self._connect_again(attempts)) is None:
                await attempts.pause()
            if isinstance(found, NvcfCallError):
                self._stop_requested(str(found))
                return
            session = found
            if session.region != region:
                emit(_log, "nvcf.region_changed", logging.WARNING, region=session.region)
                self._stop_requested("the control plane has given another region")
                return

    async def _connect_again(self, attempts: "_Attempts") -> NvcfSession | NvcfCallError | None:
        """Connect, and log in with the new token; `None` if it is to be tried again."""
        before = self._token
        try:
            session = await self._connect()
        except NvcfCallError as error:
            if not self.is_renewal_failing:
                emit(_log, "nvcf.away", logging.WARNING, error=str(error))
            self.is_renewal_failing = True
            return error if attempts.is_last(error) else None
        if self.is_renewal_failing:
            emit(_log, "nvcf.back")
        self.is_renewal_failing = False
        if self._token != before and self._broker is not None and self.login() is not None:
            await self._broker.renew()
        return session

    async def _connect(self) -> NvcfSession:
        session = await self._calls.connect_once()
        if session.expires_at < time.time() + _SKEW_S:
            raise NvcfCallError("ConnectOnce: the token in the response has expired")
        is_new, self._token = session.token != self._token, session.token
        if is_new:
            try:
                await asyncio.to_thread(
                    write_token, self._folder, session.token, session.expires_at
                )
            except OSError as error:
                emit(_log, "nvcf.token_not_kept", logging.WARNING, error=str(error))
        return session

    def _start(self, stack: AsyncExitStack, session: NvcfSession) -> None:
        nvcf = self._settings.nvcf
        tasks = [spawn(self._keep_connected(session), "nvcf.connects")]
        if nvcf.metadata_file:
            account = nvcf.account
            ask = keep_statement(
                lambda: self._calls.metadata_statement(account), Path(nvcf.metadata_file)
            )
            tasks.append(spawn(ask, "nvcf.metadata"))
        if nvcf.secrets_token is not None:
            path = Path(nvcf.secrets_folder) / SECRETS_FILE
            tasks.append(spawn(keep_statement(self._calls.secrets_statement, path), "nvcf.secrets"))
        for task in tasks:
            stack.callback(task.cancel)


class _Attempts:
    """Attempts to connect in a row, later and later."""

    def __init__(self, clock: Callable[[], float], refused_s: float) -> None:
        self._clock = clock
        self._refused_s = refused_s
        self._delay_s = _RETRY_MIN_S
        self._refused_at: float | None = None

    def is_last(self, error: NvcfCallError) -> bool:
        """Whether the worker has been refused for too long."""
        if not error.is_refusal:
            self._refused_at = None
            return False
        now = self._clock()
        if self._refused_at is None:
            self._refused_at = now
        return now - self._refused_at > self._refused_s

    async def pause(self) -> None:
        """Wait for the next attempt."""
        await asyncio.sleep(spread(self._delay_s))
        self._delay_s = min(2 * self._delay_s, _RETRY_MAX_S)


def next_connect_s(life_s: float, chance: float) -> float:
    """Return when to connect again: after 20 to 30 minutes, sooner if the token ends sooner.

    ``chance`` is between 0 and 1, ``life_s`` what is left of the token's life in seconds.
    """
    least_s, most_s = _AGAIN_S
    return max(min(least_s + (most_s - least_s) * chance, life_s * _OF_LIFE), _LEAST_S)


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads agents, guards nothing
