"""What is known of a version when it is looked at, and what may be asked for then. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.domain.model import Deployment, GpuSpec, Instance, Phase, State
from gateway.provision.backend import Holding
from queueing.interface import Load


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything there is to know of a version; ``load`` is `None` when it was not asked for.

    ``now`` is Unix seconds. ``has_queue`` tells that a queue may be left although nothing is
    deployed, as after a change of leaders. ``is_wanted`` tells that somebody has called it while
    nothing served it. ``gone`` are ids of instances of which nothing runs, whatever their records
    say: a dead leader's.
    """

    now: float
    state: State
    deployment: Deployment | None
    instances: Sequence[Instance]
    holdings: Mapping[str, Holding]
    load: Load | None = None
    has_queue: bool = False
    is_wanted: bool = False
    gone: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Create:
    """Write down and start one more instance."""

    spec: GpuSpec


@dataclass(frozen=True, slots=True)
class Restart:
    """Start an instance again that is down."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Note:
    """Write down what an instance has come to. ``is_gone``: nothing of it runs."""

    instance: Instance
    phase: Phase
    error: str
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Have an instance finish and end."""

    instance_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Break:
    """End an instance that no longer does what it should."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the record of an instance of which nothing is left."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class EndQueue:
    """End every queued request with an error, now."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Remove the queue, and the deployment if its record is still there: all is over."""

    deployment: Deployment | None


Action = Create | Restart | Note | Stop | Break | Forget | EndQueue | Finish


@dataclass(slots=True)
class Plan:
    """What to do, in this order, and when to look again.

    ``look_at`` is Unix seconds, `None` when only a change needs another look. ``load_every_s``: how
    often the queue must be read until the next look, `None` for not at all.
    """

    actions: list[Action] = field(default_factory=list)
    look_at: float | None = None
    load_every_s: float | None = None

    def again_at(self, at: float) -> None:
        """Look again at ``at`` at the latest."""
        self.look_at = at if self.look_at is None else min(self.look_at, at)

    def read_load(self, every_s: float) -> None:
        """Read the queue at least so often."""
        before = self.load_every_s
        self.load_every_s = every_s if before is None else min(before, every_s)
