"""The planner's input and output: a snapshot of a function version, a plan of actions. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.domain.model import Deployment, GpuSpec, Instance, Phase, VersionState
from gateway.provision.backend import InstanceStatus
from queueing.interface import Load


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one function version at ``now``, in Unix seconds.

    ``statuses`` are the backend's instances by id. ``load`` is `None` if the queue was not read.
    ``has_queue`` is true if a queue may be left although nothing is deployed, as after a change of
    leaders. ``has_wake_request`` is true if a client has called the version while nothing served
    it.
    """

    now: float
    state: VersionState
    deployment: Deployment | None
    instances: Sequence[Instance]
    statuses: Mapping[str, InstanceStatus]
    load: Load | None = None
    has_queue: bool = False
    has_wake_request: bool = False


@dataclass(frozen=True, slots=True)
class Create:
    """Store the record of a new instance and start it."""

    spec: GpuSpec


@dataclass(frozen=True, slots=True)
class Restart:
    """Start an instance again that is down."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class SetPhase:
    """Store the phase and the error of an instance. ``is_gone``: nothing of it runs any more."""

    instance: Instance
    phase: Phase
    error: str
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop an instance; it may finish its requests within ``grace_s`` seconds."""

    instance_id: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Fail:
    """End an unhealthy instance at once."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the record of an instance that has ended."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class EndQueue:
    """End every queued request with an error, at once."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Remove the queue, and the deployment if its record still exists: the undeploy is complete."""

    deployment: Deployment | None


Action = Create | Restart | SetPhase | Stop | Fail | Forget | EndQueue | Finish


@dataclass(slots=True)
class Plan:
    """Actions to execute in this order, and when to plan again.

    ``next_at`` is in Unix seconds; `None` means that only a change requires another plan.
    ``load_every_s`` is the interval at which the queue must be read until then; `None` means not
    at all.
    """

    actions: list[Action] = field(default_factory=list)
    next_at: float | None = None
    load_every_s: float | None = None

    def plan_again_at(self, at: float) -> None:
        """Plan again at ``at`` or earlier."""
        self.next_at = at if self.next_at is None else min(self.next_at, at)

    def read_load(self, every_s: float) -> None:
        """Read the queue every ``every_s`` seconds or more often."""
        before = self.load_every_s
        self.load_every_s = every_s if before is None else min(before, every_s)
