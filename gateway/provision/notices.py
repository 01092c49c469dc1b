"""Short words about versions between gateway processes: an empty message whose subject says it all.

The subject is a prefix and the version's id (core NATS). Who is not connected at that moment does
not hear it: whoever listens has another, slower way to find out.
"""

from collections.abc import Callable
from typing import ClassVar

from queueing.nats.connection import Connection
from wire.ids import parse_uuid


class Notices:
    """Listens, for as long as ``connection`` lives; ``heard`` gets the version's id."""

    prefix: ClassVar[bytes]

    def __init__(self, connection: Connection, heard: Callable[[str], object]) -> None:
        self._connection = connection
        self._heard = heard
        self._subscription = connection.subscribe(self.prefix + b"*", self._came)

    @classmethod
    def subject(cls, version_id: str) -> bytes:
        """Return where it is told of a version."""
        return cls.prefix + version_id.encode()

    def close(self) -> None:
        """Listen no more."""
        self._connection.unsubscribe(self._subscription)

    def _came(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:  # noqa: ARG002  the subject says it
        version_id = parse_uuid(subject.removeprefix(self.prefix))
        if version_id is not None:
            self._heard(version_id)
