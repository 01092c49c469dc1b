"""Asks a gateway process of any region; a region that is away is no process that is gone.

A request id contains the number of a process, and not its region. So a process is asked in the own
region first, then in each other one, on subjects that contain the region. If none has it, it is
gone, unless a region is away: as long as the processes of each other region say that they are there
(``nvcf.region.<region>``), nothing is unknown.
"""

from collections.abc import Callable, Sequence

from queueing.interface import Bus, NoResponder, QueueUnavailable, Subscription
from wire.subjects import region_subject

_PRESENT = b"+"


class Regions:
    """The regions of an installation, from one of its processes."""

    def __init__(self, bus: Bus, own: str, others: Sequence[str]) -> None:
        self._bus = bus
        self._others = tuple(others)
        self._subscription: Subscription | None = None
        self.own = own

    def start(self) -> None:
        """Say from now on that this region is there, if there are others."""
        if self._others:
            subject = region_subject(self.own).encode()
            self._subscription = self._bus.subscribe(subject, self._on_question)

    def close(self) -> None:
        """Say it no more."""
        if self._subscription is not None:
            self._subscription.unsubscribe()

    async def ask(self, subject_in: Callable[[str], str], payload: bytes) -> bytes:
        """Return what the process on ``subject_in(region)`` says, in whichever region that is.

        Raises `NoResponder` if there is none, and `QueueUnavailable` if that is not known.
        """
        for region in (self.own, *self._others):
            try:
                return await self._bus.request(subject_in(region).encode(), payload)
            except NoResponder:
                continue
        for region in self._others:
            try:
                await self._bus.request(region_subject(region).encode(), b"?")
            except NoResponder as error:
                raise QueueUnavailable(f"region {region} is away") from error
        raise NoResponder

    def _on_question(self, _subject: bytes, reply: bytes, _payload: bytes) -> None:
        if reply:
            self._bus.publish(reply, _PRESENT)
