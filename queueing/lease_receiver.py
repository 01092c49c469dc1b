"""What arrives at a worker from its queue, on every broker: leases and cancels, and who gets them.

A lease begins when there is a slot for it. Others are held for moments (`queueing.held`) or given
back. After a standstill (`queueing.standstill`) what arrives is dropped.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

from queueing.cancels import CancelMemory
from queueing.held import HeldLeases
from queueing.interface import Lease
from queueing.standstill import WATCH_S, Standstill
from runtime.events import emit
from runtime.lifecycle import Ticker

_log = logging.getLogger("queueing.worker")


class LeaseReceiver(ABC):
    """The part of a `queueing.interface.PullConsumer` that is the same on each broker.

    ``on_lease`` gets every lease, at most as many as `want` permits; ``on_cancel`` gets the id of
    every cancelled request of the version, whichever worker has it.
    """

    def __init__(
        self,
        name: str,
        on_lease: Callable[[Lease], None],
        on_cancel: Callable[[str], None],
        boot_clock: Callable[[], float],
    ) -> None:
        """``name`` is of the queue, ``boot_clock`` as for `Standstill`."""
        self._name = name
        self._on_lease = on_lease
        self._on_cancel = on_cancel
        self._on_standstill: Callable[[], None] = lambda: None
        self._on_loss: Callable[[], None] = lambda: None
        self._tell_bound = self._renew = self._on_line = self._on_loss
        self._is_bound = self._is_open = self._is_scheduled = self._is_draining = False
        self._is_line_empty = False
        self._free = self._asked = 0
        self._stood_s = 0.0
        loop = asyncio.get_running_loop()
        self._call_soon = loop.call_soon
        self._cancels = CancelMemory(loop.time)
        self._boot_clock = boot_clock
        self._watcher = Ticker(WATCH_S, self._watch)
        self._standstill = Standstill(self, name, boot_clock)
        self._held = HeldLeases(boot_clock, self._are_held_over)

    # What a broker adds

    @abstractmethod
    def _ask(self) -> None:
        """Ask for as many requests as there are slots. Called soon after `_is_scheduled` is set."""

    @abstractmethod
    def _stop_asking(self) -> None:
        """End what was asked for and has not arrived."""

    @abstractmethod
    def _watch(self) -> None:
        """Called every `WATCH_S`."""

    @abstractmethod
    def is_silent_usual(self) -> bool:
        """Whether the broker need not send anything now."""

    @abstractmethod
    def read_bytes(self) -> int:
        """Return how much was read so far."""

    @abstractmethod
    def heartbeat_s(self) -> float:
        """Return the interval in which something arrives from the broker, otherwise."""

    @abstractmethod
    async def read_all(self) -> None:
        """Return when all has been read that was sent before, or the link is lost."""

    def _are_held_over(self) -> bool:
        """Whether leases that are held are to be dropped, because they may be others' by now."""
        return self._standstill.may_be_over()

    def _drop_held(self) -> None:
        """Nothing that is held is to be begun: leases may be over."""
        self._held.drop()

    # PullConsumer

    def watch(
        self,
        on_standstill: Callable[[], None],
        on_loss: Callable[[], None],
        on_bound: Callable[[], None],
        renew: Callable[[], None],
        on_line: Callable[[], None],
    ) -> None:
        """Call these from now on."""
        self._on_line = on_line
        self._on_standstill = on_standstill
        self._on_loss = on_loss
        self._tell_bound = on_bound
        self._renew = renew

    def want(self, free: int) -> None:
        """Set how many further requests may be run; 0 or less ends what was asked for."""
        self._free = free
        self._is_open = free > 0
        held = self._held
        if free <= 0:
            held.give_back()
            if self._asked:
                self._stop_asking()
        elif held.waiting or 2 * self._asked <= free + held.ahead:
            self._ask_soon()

    def taken(self) -> None:
        """One request less may be leased."""
        self._free -= 1

    def is_line_empty(self) -> bool:
        """Return whether no request waits, as far as is known."""
        return self._is_line_empty

    def is_bound(self) -> bool:
        """Whether the queue has been found."""
        return self._is_bound

    @property
    def free(self) -> int:
        """How many further requests may be run."""
        return self._free

    @property
    def lapsed(self) -> int:
        """The leases that were dropped because they may have been over."""
        return self._held.lapsed

    # Leases

    def _ask_soon(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._ask)

    def _admit(self, lease: Lease) -> None:
        """Begin a lease, hold it, or end it."""
        held = self._held
        if self._cancels.ids and lease.request_id in self._cancels.ids:
            lease.ack()
        elif self._free > 0 and not held.waiting:
            self._free -= 1
            held.begun += 1
            self._on_lease(lease)
        elif self._is_open and held.has_room():
            held.hold(lease, self._boot_clock())
            self._set_line(is_empty=False)
        else:
            lease.nak()

    def _hand_over(self) -> None:
        """Begin what is held, as far as there are slots."""
        held = self._held
        while held.waiting and self._free > 0:
            _, lease = held.waiting.popleft()
            if lease.request_id in self._cancels.ids:
                lease.ack()
                continue
            self._free -= 1
            held.begun += 1
            self._on_lease(lease)

    def _cancelled(self, request_id: str) -> None:
        self._cancels.add(request_id)
        self._on_cancel(request_id)

    def _set_line(self, *, is_empty: bool) -> None:
        if is_empty is not self._is_line_empty:
            self._is_line_empty = is_empty
            self._on_line()

    # For `Standstill`

    def is_over(self) -> bool:
        """Whether the process has stood still for so long that a lease may be over."""
        return self._standstill.may_be_over()

    def stood_still(self, seconds: float) -> None:
        """Drop what was not begun."""
        self._drop_held()
        self._stood_s = seconds
        self._on_standstill()

    def all_read(self) -> None:
        """Say so. A subclass asks again."""
        emit(
            _log,
            "worker.stood_still",
            logging.WARNING,
            stream=self._name,
            seconds=round(self._stood_s, 1),
            lapsed=self.lapsed,
        )

    def renew_all(self) -> None:
        """Have all leases renewed."""
        self._renew()
