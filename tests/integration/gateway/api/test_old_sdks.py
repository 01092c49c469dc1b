"""The SDKs of 2024/25 hear words they know; everybody else hears the truth.

Source: `docs/wire.md` §16.2.
"""

import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.model import Instance, Phase, VersionState
from tests.support.control import Client, ControlPlane, deployment_path, version_path

SIDEKO = {"x-sideko-sdk-language": "Python"}
KONFIG = {"user-agent": "Konfig/2.87.3/python"}


async def set_state(
    plane: ControlPlane, function_id: str, version_id: str, state: VersionState
) -> None:
    version = plane.catalog.version(function_id, version_id)
    assert version is not None
    await plane.store.put(replace(version, state=state))

    def is_shown() -> bool:
        shown = plane.catalog.version(function_id, version_id)
        return shown is not None and shown.state is state

    await plane.catalog.until(is_shown)


@pytest.mark.parametrize("headers", [SIDEKO, KONFIG], ids=["sideko", "konfig"])
@pytest.mark.parametrize(
    ("state", "projected"),
    [
        (VersionState.DEGRADING, "ACTIVE"),
        (VersionState.DEGRADED, "DEPLOYING"),
        (VersionState.ACTIVE, "ACTIVE"),
    ],
)
async def test_states_are_projected_for_old_sdks_alone(
    client: Client,
    plane: ControlPlane,
    headers: dict[str, str],
    state: VersionState,
    projected: str,
) -> None:
    function_id, version_id = await client.deployed()
    await set_state(plane, function_id, version_id, state)
    for asked, *place in (
        (version_path(function_id, version_id), "function"),
        ("/v2/nvcf/functions?visibility=private", "functions", -1),
        (f"/v2/nvcf/functions/{function_id}/versions", "functions", 0),
        (deployment_path(function_id, version_id), "deployment"),
        (f"/v2/nvcf/queues/functions/{function_id}", "queues", 0),
    ):
        truth, told = (
            (await client.get(asked)).body,
            (await client.get(asked, headers=headers)).body,
        )
        for step in place:
            truth, told = truth[step], told[step]
        name = "status" if "status" in truth else "functionStatus"
        assert (truth[name], truth.get("statusDetail")) == (state.value, None)
        assert told[name] == projected
        assert told.get("statusDetail", state.value) == state.value


async def test_instances_are_told_in_both_tongues(client: Client, plane: ControlPlane) -> None:
    function_id, version_id = await client.deployed()
    deployment = plane.catalog.deployment(version_id)
    assert deployment is not None
    spec = deployment.specs[0]
    lease_until = int(time.time()) + 600
    starts: dict[str, Any] = {}
    serves = {"is_connected": True, "is_healthy": True, "lease_until": lease_until}
    for name, phase, worker in (
        ("a", Phase.RUNNING, starts),
        ("b", Phase.STARTING, starts),
        ("c", Phase.FAILED, starts),
        ("d", Phase.STARTING, serves),
    ):
        instance = Instance(
            name,
            deployment.deployment_id,
            spec.spec_id,
            deployment.function_id,
            deployment.version_id,
            deployment.account,
            spec.gpu,
            spec.instance_type,
            spec.backend,
            phase,
        )
        await plane.store.put(replace(instance, **worker))
    await plane.catalog.until(lambda: len(plane.catalog.instances(version_id)) == 4)
    path = version_path(function_id, version_id)

    async def statuses(**how: dict[str, str]) -> list[tuple[str, str | None]]:
        told = (await client.get(path, **how)).body["function"]["activeInstances"]
        return [(one["instanceId"], one.get("instanceStatus")) for one in told]

    shown = (await client.get(path)).body["function"]["activeInstances"]
    assert {one["icmsRequestId"] for one in shown} == {deployment.deployment_id}
    assert {one["sisRequestId"] for one in shown} == {deployment.deployment_id}
    assert await statuses() == [("a", "RUNNING"), ("b", "STARTING"), ("d", "RUNNING")]
    assert await statuses(headers=SIDEKO) == [("a", "ACTIVE"), ("b", None), ("d", "ACTIVE")]
