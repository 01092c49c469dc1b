"""Notices about versions between gateway processes: empty messages with the version in the subject.

The subject is a prefix and the version id. A process that is not connected misses a notice; every
subscriber has another, slower way to learn the same.
"""

from collections.abc import Callable
from typing import ClassVar

from queueing.interface import Bus
from wire.ids import parse_uuid


class Notices:
    """Subscribes to all notices of one kind; ``received`` gets the version id of each."""

    prefix: ClassVar[bytes]

    def __init__(self, bus: Bus, received: Callable[[str], object]) -> None:
        self._received = received
        self._subscription = bus.subscribe(self.prefix + b"*", self._on_message)

    @classmethod
    def subject(cls, version_id: str) -> bytes:
        """Return the subject of notices about one version."""
        return cls.prefix + version_id.encode()

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.unsubscribe()

    def _on_message(self, subject: bytes, _reply: bytes, _payload: bytes) -> None:
        version_id = parse_uuid(subject.removeprefix(self.prefix))
        if version_id is not None:
            self._received(version_id)
