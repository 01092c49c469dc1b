"""What one gateway process knows about its requests in one queue."""

from enum import IntEnum

from queueing.interface import Waiting
from queueing.nats.publishes import PublishStatus
from queueing.position import Line
from runtime.metrics import Counter
from wire.subjects import cancel_subject, queue_subjects, stream_name


class Stage(IntEnum):
    """How far a request is with the broker."""

    PENDING = 1
    """Published; the broker has not answered."""
    HELD = 2
    """In the queue or leased: the broker knows it under ``sequence``."""
    LOST = 3
    """The queue has lost it; a worker that leased it before may still answer."""


PENDING = Stage.PENDING
HELD = Stage.HELD
LOST = Stage.LOST


class Entry:
    """One request of ours.

    ``frame`` is kept only while it may have to be sent again. ``at`` is loop time: of the publish,
    or of the loss. ``sends`` counts publishes, ``stalls`` those that found no stream;
    ``is_stalled`` while it waits for one.
    """

    __slots__ = (
        "at",
        "frame",
        "is_stalled",
        "queue",
        "request_id",
        "sends",
        "sequence",
        "stage",
        "stalls",
        "waiting",
    )

    def __init__(
        self, queue: "VersionQueue", request_id: str, waiting: Waiting, frame: bytes, at: float
    ) -> None:
        self.queue = queue
        self.request_id = request_id
        self.waiting = waiting
        self.frame = frame
        self.at = at
        self.sends = 1
        self.stalls = 0
        self.is_stalled = False
        self.sequence = 0
        self.stage = PENDING


class VersionQueue:
    """The queue of one version in our region, as this process sees it.

    ``created`` is the stream's birth as the broker tells it, empty until known. ``stalled`` are
    requests that found no stream, to be published again as soon as there is one. ``pending`` counts
    publishes without an answer. ``published`` is the metric of those that succeeded; it belongs to
    the stream's name, so that it grows on when the queue is forgotten and opened again.
    """

    __slots__ = (
        "_publishes",
        "ack_prefix",
        "by_sequence",
        "cancel_subject",
        "created",
        "is_ensuring",
        "line",
        "pending",
        "published",
        "stalled",
        "stream",
        "subject",
        "version_id",
    )

    def __init__(self, region: str, version_id: str, publishes: Counter) -> None:
        """``publishes`` is as from `queueing.nats.publishes.publish_counter`."""
        self.version_id = version_id
        self.stream = stream_name(region, version_id)
        self._publishes = publishes
        self.published = publishes.child(self.stream, PublishStatus.OK)
        self.subject = queue_subjects(region, version_id).removesuffix(">").encode()
        self.cancel_subject = cancel_subject(version_id).encode()
        self.ack_prefix = b'{"stream":"%b","seq":' % self.stream.encode()
        self.created = ""
        self.line = Line()
        self.by_sequence: dict[int, Entry] = {}
        self.stalled: list[Entry] = []
        self.pending = 0
        self.is_ensuring = False

    def is_idle(self) -> bool:
        """Whether nothing of ours is in it."""
        return not (self.by_sequence or self.pending or self.stalled or self.is_ensuring)

    def count_failure(self, status: PublishStatus) -> None:
        """A publish came to nothing."""
        self._publishes.child(self.stream, status).value += 1

    def add(self, entry: Entry, sequence: int) -> None:
        """The broker holds ``entry`` under ``sequence``."""
        entry.sequence = sequence
        entry.stage = HELD
        entry.frame = b""
        self.by_sequence[sequence] = entry
        self.line.add(sequence)

    def remove(self, entry: Entry) -> None:
        """Forget a request, however far it is."""
        if entry.stage is HELD:
            sequence = entry.sequence
            if self.by_sequence.pop(sequence, None) is not None:
                self.line.remove(sequence)

    def lose(self, now: float) -> list[Entry]:
        """The stream is gone or another: return everything that was held, now `LOST`."""
        lost = list(self.by_sequence.values())
        self.by_sequence.clear()
        self.line.clear()
        for entry in lost:
            entry.stage = LOST
            entry.at = now
        return lost
