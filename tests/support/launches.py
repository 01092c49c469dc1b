"""Launch specs of instances."""

from typing import Any

from gateway.domain.model import VersionDetails
from gateway.provision.backend import LaunchSpec
from tests.support.deployments import FUNCTION_ID, VERSION_ID, gpu_spec, instance

INSTANCE_ID = "33333333-3333-4333-8333-333333333333"


def launch_of(instance_id: str = INSTANCE_ID, token: str = "t1", **spec: Any) -> LaunchSpec:
    """Return a launch of an instance of one version, whose agent gets ``token``."""
    return LaunchSpec(
        instance(instance_id),
        gpu_spec(concurrency=8),
        VersionDetails(
            FUNCTION_ID,
            VERSION_ID,
            "acme",
            "",
            spec={"containerImage": "registry/echo:1", "inferencePort": 9000, **spec},
        ),
        {"key": "hush-hush"},
        {"WORKER_CONTROL__URL": "https://api:8080", "WORKER_CONTROL__TOKEN": token},
    )
