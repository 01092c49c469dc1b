"""Watches the inference server: probes it, and stops the pulling of requests while it is in doubt.

`worker_agent.inference.liveness` decides; this is its shell, with the probes and the one task that
sends them.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from runtime.events import emit
from worker_agent.inference.health import Miss, Probe
from worker_agent.inference.liveness import DOUBTED, DOWN, UP, Liveness, ServerState

_log = logging.getLogger("worker.health")


@dataclass(frozen=True, slots=True)
class WatchPorts:
    """What a watch calls.

    ``on_probe`` gets whether a probe was healthy. ``on_change`` is called when the server begins or
    ceases to get requests, or to count as healthy. ``served`` returns a number that grows with
    every response.
    """

    on_probe: Callable[[bool], object]
    on_change: Callable[[], object]
    served: Callable[[], float]


class ServerPool(Protocol):
    """The connections for requests; ``in_use`` is how many requests are on them."""

    @property
    def in_use(self) -> int: ...

    async def reach(self) -> None:
        """Raise `OSError` if the server cannot be reached."""


class HealthWatch:
    """The inference server's health; a `worker_agent.inference.server.ServerWatch`.

    ``failure`` is why the inference server gets no requests, empty if it gets them.
    """

    def __init__(
        self, liveness: Liveness, probe: Probe, pool: ServerPool, ports: WatchPorts
    ) -> None:
        """``pool`` has the connections for requests."""
        self._liveness = liveness
        self._probe = probe
        self._pool = pool
        self._ports = ports
        self._changed = asyncio.Event()
        self._has_begun = False
        self._served_before = 0.0
        self.failure = "not asked yet"

    @property
    def is_healthy(self) -> bool:
        """Whether the server counts as healthy: it was so once, and is not down."""
        return self._has_begun and self._liveness.state is not DOWN

    async def ask(self) -> bool:
        """Probe once, before the first healthy response; return whether this one was healthy."""
        miss = await self._probe_server()
        self.failure = "" if miss is None else miss.reason
        if miss is None:
            self._has_begun = True
            self._ports.on_change()
        return miss is None

    async def run(self) -> None:
        """Probe for ever, after the first healthy response."""
        while True:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._liveness.probe_in_s):
                    await self._changed.wait()
                continue
            await self._probe_again()

    # ServerWatch

    def unreachable(self, error: OSError) -> None:
        """A request found no connection."""
        before = self._liveness.state
        # A server whose queue of connections is full does not refuse them, it lets them wait.
        is_busy = isinstance(error, TimeoutError) and self._pool.in_use > 0
        self._liveness.unreachable(is_busy=is_busy, has_served=self._has_served())
        self._act(before, str(error) or type(error).__name__)

    def broke(self) -> None:
        """The connection of a request ended before its response."""
        before = self._liveness.state
        self._liveness.broke(has_served=self._has_served())
        self._act(before, "a connection ended before its response")

    def unresponsive(self) -> None:
        """A request that was left showed no sign for the time of grace."""
        before = self._liveness.state
        self._liveness.unresponsive()
        self._act(before, "a cancelled request does not end")

    async def _probe_again(self) -> None:
        served = self._ports.served()
        was_busy = self._pool.in_use > 0
        miss = await self._probe_server()
        before = self._liveness.state
        if miss is None:
            self._liveness.healthy()
            self._act(before, "")
            return
        is_busy = was_busy or self._pool.in_use > 0 or self._ports.served() != served
        self._liveness.missed(is_refused=miss.is_refused, is_busy=is_busy)
        self._act(before, miss.reason)

    async def _probe_server(self) -> Miss | None:
        probe = self._probe
        miss = await probe.ask()
        if miss is None and probe.is_apart and self._liveness.state is not UP:
            # Requests go to another port, which may still be refusing them.
            try:
                await self._pool.reach()
            except OSError as error:
                miss = Miss(str(error) or type(error).__name__, is_refused=False)
        self._ports.on_probe(miss is None)
        return miss

    def _act(self, before: ServerState, reason: str) -> None:
        """Follow the liveness after an event; ``reason`` is what is wrong, if anything is."""
        state = self._liveness.state
        self.failure = "" if state is UP else reason
        if state is before:
            return
        if state is UP:
            emit(_log, "inference.healthy")
        elif state is DOUBTED:
            emit(_log, "inference.doubted", reason=reason)
        else:
            emit(_log, "inference.unhealthy", logging.WARNING, reason=reason)
        self._changed.set()
        self._ports.on_change()

    def _has_served(self) -> bool:
        before, self._served_before = self._served_before, self._ports.served()
        return self._served_before != before
