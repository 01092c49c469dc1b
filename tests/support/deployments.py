"""Builders of deployments and instances, and parts of the API's bodies.

No test depends on the default values.
"""

from typing import Any

from gateway.domain.model import Deployment, GpuSpec, Instance, Phase
from wire.ids import FunctionId, VersionId

FUNCTION_ID = FunctionId("11111111-1111-4111-8111-111111111111")
VERSION_ID = VersionId("22222222-2222-4222-8222-222222222222")

HEALTH = {
    "protocol": "HTTP",
    "uri": "/ready",
    "port": 1,
    "timeout": "PT1S",
    "expectedStatusCode": 200,
}
"""The health check of a function, as requests and responses have it."""


def gpu_spec(spec_id: str = "s1", least: int = 1, most: int = 1, **more: Any) -> GpuSpec:
    return GpuSpec(
        spec_id=spec_id,
        gpu="L40S",
        backend=more.pop("backend", "local"),
        instance_type="type-1",
        min_instances=least,
        max_instances=most,
        **more,
    )


def deployment(*specs: GpuSpec, **more: Any) -> Deployment:
    return Deployment(
        deployment_id=more.pop("deployment_id", "d1"),
        function_id=more.pop("function_id", FUNCTION_ID),
        version_id=more.pop("version_id", VERSION_ID),
        account="acme",
        specs=specs or (gpu_spec(),),
        created_at="2026-01-01T00:00:00.000000Z",
        updated_at="2026-01-01T00:00:00.000000Z",
        deadline_at=more.pop("deadline_at", 1_000_000),
        **more,
    )


def instance(instance_id: str = "i1", spec_id: str = "s1", **more: Any) -> Instance:
    """Return an instance that is starting."""
    return Instance(
        instance_id=instance_id,
        deployment_id=more.pop("deployment_id", "d1"),
        spec_id=spec_id,
        function_id=FUNCTION_ID,
        version_id=more.pop("version_id", VERSION_ID),
        account="acme",
        gpu="L40S",
        instance_type="type-1",
        backend="local",
        phase=more.pop("phase", Phase.STARTING),
        **more,
    )


def running(instance_id: str = "i1", spec_id: str = "s1", **more: Any) -> Instance:
    """Return an instance that is running, connected and healthy."""
    return instance(
        instance_id,
        spec_id,
        **{
            "phase": Phase.RUNNING,
            "is_connected": True,
            "is_healthy": True,
            "lease_until": 2_000_000,
            **more,
        },
    )
