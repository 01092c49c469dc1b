"""The port through which the reconciler runs instances.

A backend decides nothing: it starts what it is given, reports the status of each instance, and
stops it. `gateway.provision.planner` decides whether and when to start an instance again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from gateway.domain.model import GpuSpec, Instance, VersionDetails
from gateway.domain.telemetry_endpoint import credentials_in

OnChange = Callable[[str, str], None]
"""Called with the function id and the version id of an instance whose status has changed."""


class ProvisioningError(Exception):
    """A configured cluster cannot be used; the message says what to do."""


class RunState(Enum):
    """Whether an instance runs at its backend."""

    UP = "up"
    """It was started and has not ended. Its worker reports whether it can serve."""
    DOWN = "down"
    """It has ended or could not start; nothing of it runs."""
    STOPPING = "stopping"
    """It is being stopped. The backend drops it as soon as it has ended."""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """The status of one instance at its backend.

    ``since`` is when it entered ``state``, in Unix seconds. ``reason`` says why it is DOWN, with
    the last lines of its log, or what keeps one that is UP from serving, if the backend knows.
    ``is_final`` is true if every further attempt must fail as well.
    """

    instance_id: str
    state: RunState
    since: float
    reason: str = ""
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything that a backend needs to run one instance.

    ``secrets`` are values by name. ``worker_environment`` holds the settings with which the
    instance's worker logs in to the platform. ``variables`` are those of the inference server that
    have credentials in them. ``registry_logins`` is a file of Docker's logins for the function's
    image, empty if the account has none.
    """

    instance: Instance
    spec: GpuSpec
    details: VersionDetails
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    worker_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    registry_logins: str = field(default="", repr=False)

    def hidden(self) -> list[str]:
        """Return the texts that are masked in messages about the instance."""
        return [*self.secrets.values(), *credentials_in(self.variables)]


class Backend(Protocol):
    """Runs instances. A failing instance has a status; it never makes a method raise."""

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change``, in the running loop, whenever a status changes or is dropped."""

    async def adopt(self) -> None:
        """Take over instances that no process has and that run within reach; new statuses tell.

        Called again and again by the process that has to look after instances. Raises `OSError`.
        """

    def release(self) -> None:
        """Leave all instances, as they are, to the process that calls `adopt` next.

        Instances that do not outlive this process are stopped instead.
        """

    def record(self, instance_id: str) -> Instance | None:
        """Return the record with which an instance was started; `None` if it is not here."""

    def is_known(self, cluster: str) -> bool:
        """Whether `statuses` tells of the instances of ``cluster``. Before, nothing is planned."""

    def version_ids(self) -> Iterable[tuple[str, str]]:
        """Return the function id and version id of every version with an instance of this process.

        Those end when another process leads, which cannot reach them.
        """

    def statuses(self, version_id: str) -> Mapping[str, InstanceStatus]:
        """Return the statuses of one version's instances, by instance id."""

    async def start(self, launch: LaunchSpec) -> None:
        """Start an instance that is new or DOWN. Do nothing for any other."""

    def stop(self, instance_id: str, grace_s: float) -> None:
        """Let an instance finish its requests within ``grace_s`` seconds, then end it.

        Returns at once.
        """

    def fail(self, instance_id: str, reason: str) -> None:
        """End an unhealthy instance at once; it becomes DOWN."""

    def log_tail(self, instance_id: str) -> str:
        """Return the last lines of an instance's log; empty if there are none."""
