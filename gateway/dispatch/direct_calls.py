"""How many calls of each version workers have over channels, for all processes.

The broker counts the calls that went through a queue; of the others only the process that holds
their client knows. So every process tells its numbers on ``nvcf.direct.<region>`` while it has such
calls, and once when it has none any more:

    <sender> <version id>=<count> ...

Nothing is stored: the numbers of a process that is silent are forgotten.
"""

from collections.abc import Callable, Mapping, Sequence

from queueing.interface import Bus, Subscription
from wire.ids import parse_uuid
from wire.subjects import direct_subject

TELL_S = 0.5
"""Time between two messages of a process."""
_FORGET_S = 2.0
_MAX_SENDERS = 4096
_MAX_VERSIONS = 16_384
"""Versions in one message, which has to fit into one of the broker's."""

_Numbers = dict[bytes, tuple[float, dict[str, int]]]
"""By sender, when it last told its numbers, and the numbers by version."""


class DirectCalls:
    """The numbers of this process and of the others. `tick` tells them."""

    def __init__(
        self,
        bus: Bus,
        region: str,
        name: str,
        own: Callable[[], Mapping[str, int]],
        clock: Callable[[], float],
        other_regions: Sequence[str] = (),
    ) -> None:
        """``name`` is this process's among all, without blanks; ``clock`` is monotonic seconds.

        ``own`` returns its calls that workers have over channels, by version, without zeros.
        """
        self._bus = bus
        self._subject = direct_subject(region).encode()
        self._name = name.encode()
        self._own = own
        self._clock = clock
        self._others: _Numbers = {}
        self._others_elsewhere: _Numbers = {}
        self._elsewhere = [direct_subject(other).encode() for other in other_regions]
        self._subscriptions: list[Subscription] = []
        self._has_reported = False

    def start(self) -> None:
        """Listen to the others from now on."""
        self._subscriptions = [
            self._bus.subscribe(self._subject, self._on_message),
            *(
                self._bus.subscribe(subject, self._on_message_elsewhere)
                for subject in self._elsewhere
            ),
        ]

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            subscription.unsubscribe()

    def count(self, version_id: str) -> int:
        """Return how many calls of a version the region's workers have over channels.

        Those of other processes as of their last message.
        """
        count = self._own().get(version_id, 0)
        return count + self._count_of(self._others, version_id) if self._others else count

    def count_everywhere(self, version_id: str) -> int:
        """Return the same for all regions."""
        return self.count(version_id) + self._count_of(self._others_elsewhere, version_id)

    def _count_of(self, numbers: _Numbers, version_id: str) -> int:
        since = self._clock() - _FORGET_S
        return sum(counts.get(version_id, 0) for at, counts in numbers.values() if at > since)

    def tick(self) -> None:
        """Tell the numbers, if there are any or were any; to be called every `TELL_S`."""
        own = self._own()
        if own or self._has_reported:
            self._has_reported = bool(own)
            counts = [b"%b=%d" % (version.encode(), count) for version, count in own.items()]
            self._bus.publish(self._subject, b" ".join((self._name, *counts[:_MAX_VERSIONS])))
        since = self._clock() - _FORGET_S
        for numbers in (self._others, self._others_elsewhere):
            for sender in [one for one, (at, _) in numbers.items() if at <= since]:
                del numbers[sender]

    def _on_message(self, _subject: bytes, _reply: bytes, payload: bytes) -> None:
        self._keep(self._others, payload)

    def _on_message_elsewhere(self, _subject: bytes, _reply: bytes, payload: bytes) -> None:
        self._keep(self._others_elsewhere, payload)

    def _keep(self, numbers: _Numbers, payload: bytes) -> None:
        sender, *reported = payload.split()[: _MAX_VERSIONS + 1] or [b""]
        if not sender or sender == self._name:
            return
        counts: dict[str, int] = {}
        for one in reported:
            text, _, number = one.partition(b"=")
            version_id = parse_uuid(text)
            if version_id is not None and number.isdigit() and len(number) <= _MAX_DIGITS:
                counts[version_id] = int(number)
        if not counts:
            numbers.pop(sender, None)
        elif sender in numbers or len(numbers) < _MAX_SENDERS:
            numbers[sender] = (self._clock(), counts)


_MAX_DIGITS = 9
