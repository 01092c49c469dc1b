"""Health information is cut so that it fits into a record."""

import json

from gateway.domain.deployment import MAX_ERROR_BYTES, HealthInfo
from gateway.domain.model import encode
from gateway.provision.executor import MAX_HEALTH_BYTES, truncate_health
from tests.support.deployments import deployment, gpu_spec

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
