"""A composite of backends: each call reaches the backend of its cluster."""

from gateway.domain.model import GpuSpec, Instance, Phase, VersionDetails
from gateway.provision.backend import InstanceStatus, LaunchSpec, RunState
from gateway.provision.backends import Backends
from tests.support.idle_backend import IdleBackend
from wire.ids import FunctionId, VersionId

FUNCTION, VERSION = FunctionId("function"), VersionId("version")


class OneBackend(IdleBackend):
    """Runs what it is given, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, InstanceStatus] = {}

    async def start(self, launch: LaunchSpec) -> None:
        instance_id = launch.instance.instance_id
        self.found[instance_id] = InstanceStatus(instance_id, RunState.UP, 0.0)

    def statuses(self, version_id: str) -> dict[str, InstanceStatus]:
        return self.found

    def stop(self, instance_id: str, grace_s: float) -> None:
        self.found.pop(instance_id, None)


def launch(instance_id: str, cluster: str) -> LaunchSpec:
    ids = FUNCTION, VERSION, "account"
    record = Instance(instance_id, "d", "s", *ids, "L40S", "one", cluster, Phase.STARTING)
    spec = GpuSpec("s", "L40S", cluster, "one", 0, 1)
    return LaunchSpec(record, spec, VersionDetails(*ids, "2026-01-01T00:00:00.000000Z"))


async def test_an_instance_is_started_and_stopped_where_its_cluster_is() -> None:
    here, there = OneBackend(), OneBackend()
    both = Backends(here, {"remote": there})
    for instance_id, cluster in (("one", "local"), ("two", "remote"), ("three", "gone")):
        await both.start(launch(instance_id, cluster))
    assert set(here.found) == {"one", "three"}
    assert set(there.found) == {"two"}
    assert set(both.statuses(VERSION)) == {"one", "two", "three"}
    both.stop("two", 1.0)
    assert (set(here.found), set(there.found)) == ({"one", "three"}, set())
