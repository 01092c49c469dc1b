"""What is written down fits into a record."""

import json

from gateway.domain.deployment import MAX_ERROR_BYTES, HealthInfo
from gateway.domain.model import encode
from gateway.provision.executor import MAX_HEALTH_BYTES, fitted
from tests.support.deployments import deployment, gpu_spec

MAX_RECORD_BYTES = 1 << 20


def test_the_errors_of_however_many_instances_fit_into_the_record() -> None:
    worst = "\x1b" * (MAX_ERROR_BYTES - 2) + "é"
    health = [HealthInfo(f"s{n}", "L40S", "local", "t", f"i{n}", worst) for n in range(64 * 4)]
    cut = fitted(health)
    assert [one.instance_id for one in cut] == [one.instance_id for one in health]
    assert all(worst.startswith(one.error) and one.error for one in cut)
    specs = [gpu_spec(f"s{n}") for n in range(64)]
    assert len(encode(deployment(*specs, health=cut))) < MAX_RECORD_BYTES
    assert len(json.dumps([one.error for one in cut])) < MAX_RECORD_BYTES


def test_the_errors_of_a_few_are_left_whole() -> None:
    health = [HealthInfo("s", "L40S", "local", "t", "i", "é" * (MAX_ERROR_BYTES // 2))] * 4
    assert fitted(health) == tuple(health)
    assert sum(len(one.error.encode()) for one in health) <= MAX_HEALTH_BYTES
