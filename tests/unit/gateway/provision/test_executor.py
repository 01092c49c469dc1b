"""What the executor does with backends, and how health information is cut to fit into a record."""

import json
from typing import Any, cast

from gateway.domain.deployment import MAX_ERROR_BYTES, HealthInfo
from gateway.domain.model import Instance, Phase, VersionDetails, encode
from gateway.provision.actions import Stop
from gateway.provision.backend import LaunchSpec
from gateway.provision.executor import MAX_HEALTH_BYTES, Executor, Ports, truncate_health
from gateway.provision.instances import VersionInstances
from tests.support.deployments import FUNCTION_ID, VERSION_ID, deployment, gpu_spec, instance
from tests.support.idle_backend import IdleBackend

MAX_RECORD_BYTES = 1 << 20


def test_the_errors_of_any_number_of_instances_fit_into_the_record() -> None:
    worst = "\x1b" * (MAX_ERROR_BYTES - 2) + "é"
    health = [HealthInfo(f"s{n}", "L40S", "local", "t", f"i{n}", worst) for n in range(64 * 4)]
    cut = truncate_health(health)
    assert [info.instance_id for info in cut] == [info.instance_id for info in health]
    assert all(worst.startswith(info.error) and info.error for info in cut)
    specs = [gpu_spec(f"s{n}") for n in range(64)]
    assert len(encode(deployment(*specs, health=cut))) < MAX_RECORD_BYTES
    assert len(json.dumps([info.error for info in cut])) < MAX_RECORD_BYTES


def test_the_errors_of_a_few_instances_are_not_cut() -> None:
    health = [HealthInfo("s", "L40S", "local", "t", "i", "é" * (MAX_ERROR_BYTES // 2))] * 4
    assert truncate_health(health) == tuple(health)
    assert sum(len(info.error.encode()) for info in health) <= MAX_HEALTH_BYTES


class OneRecord:
    """A store that has one instance."""

    def __init__(self, stored: Instance) -> None:
        self.stored = stored

    async def get(self, key: object) -> tuple[Instance, int]:
        return self.stored, 1

    async def put(self, record: Instance, revision: int) -> int:
        self.stored = record
        return 2


async def test_an_external_worker_with_the_id_of_an_instance_here_does_not_stop_that() -> None:
    backend, worker = IdleBackend(), instance("i1", registered_with="token")
    other = instance("i1", version_id="another")
    details = VersionDetails(FUNCTION_ID, "another", "acme", "", {})
    await backend.start(LaunchSpec(other, gpu_spec(), details))
    records = OneRecord(worker)
    executor = Executor(Ports(cast("Any", records), backend, cast("Any", None)), lambda: 1.0)
    version = VersionInstances(FUNCTION_ID, VERSION_ID)
    version.apply(worker)
    await executor.execute(version, Stop("i1", 5.0))
    assert records.stored.phase is Phase.STOPPING
    assert backend.record("i1") == other
