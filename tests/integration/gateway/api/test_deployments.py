"""Deploy, look, change, undeploy over the API (`docs/wire.md` §11)."""

import asyncio
from dataclasses import replace

import pytest

from gateway.domain.model import HealthInfo, VersionState
from tests.support.control import SPEC, Client, ControlPlane, SetQueue, deployment_path


async def deploy(client: Client, path: str, *specs: dict[str, object]) -> int:
    return (await client.post(path, {"deploymentSpecifications": list(specs)})).status


async def test_a_deployment_is_told_with_every_member_that_old_and_new_clients_need(
    client: Client,
) -> None:
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    body = {"gpu": "a10g", "minInstances": 1, "maxInstances": 2}
    told = await client.post(path, {"deploymentSpecifications": [body]})
    assert told.status == 200
    deployment = told.body["deployment"]
    assert deployment["functionStatus"] == "DEPLOYING"
    assert deployment["requestQueueUrl"] == f"nats://rq/local/{version_id}"
    assert deployment["functionName"] == "echo"
    (spec,) = deployment["deploymentSpecifications"]
    spec_id = spec.pop("gpuSpecificationId")
    assert spec == {
        "gpu": "a10g",
        "backend": "",
        "instanceType": "large",
        "minInstances": 1,
        "maxInstances": 2,
        "maxRequestConcurrency": 1,
        "preferredOrder": 1,
    }
    assert (await client.get(path)).body == {
        "deployment": {
            **deployment,
            "deploymentSpecifications": [{**spec, "gpuSpecificationId": spec_id}],
        }
    }
    by_id = await client.get(f"/v2/nvcf/deployments/{deployment['deploymentId']}")
    assert by_id.body["deployment"]["functionId"] == function_id


SCALING = {"factor": 2.0, "threshold": 1.0}


async def test_all_minimums_zero_is_active_at_once(client: Client) -> None:
    function_id, version_id = await client.deployed(minInstances=0)
    told = await client.get(deployment_path(function_id, version_id))
    assert told.body["deployment"]["functionStatus"] == "ACTIVE"


@pytest.mark.parametrize(
    "change",
    [
        {"minInstances": 3},
        {"maxInstances": 0},
        {"minInstances": -1},
        {"gpu": "H100"},
        {"gpu": "nothing"},
        {"gpu": ""},
        {"backend": "nowhere"},
        {"backend": "private", "gpu": "B200"},
        {"clusters": ["local"]},
        {"instanceType": "unknown"},
        {"maxRequestConcurrency": 0},
        {"maxRequestConcurrency": 16385},
        {"configuration": {"a": 1}},
        {"minInstances": "1"},
        {"minInstances": True},
    ],
)
async def test_what_cannot_run_is_refused(client: Client, change: dict[str, object]) -> None:
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    assert await deploy(client, path, {**SPEC, **change}) == 400
    assert (await client.get(path)).status == 404


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"autoscalingConfiguration": {"scaleUpDetails": SCALING}}, "autoscalingConfiguration"),
        ({"autoscalingConfiguration": {"scaleUpFactor": 2}}, "scaleUpFactor"),
        ({"availabilityZones": ["az-1"]}, "availabilityZones"),
        ({"attributes": ["SOC2"]}, "attributes"),
        ({"regions": ["us-west-2"]}, "regions"),
        ({"backend": "other", "gpu": "H100"}, "containerImage"),
    ],
)
async def test_what_would_have_no_effect_is_refused_by_its_name(
    client: Client, change: dict[str, object], member: str
) -> None:
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    told = await client.post(path, {"deploymentSpecifications": [{**SPEC, **change}]})
    assert told.status == 400
    assert member in told.body["detail"]
    assert (await client.get(path)).status == 404


async def test_specifications_are_not_preferred_to_others(client: Client) -> None:
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    specs = [{**SPEC, "preferredOrder": order} for order in (1, 2)]
    told = await client.post(path, {"deploymentSpecifications": specs})
    assert told.status == 400
    assert "preferredOrder" in told.body["detail"]
    same = [{**SPEC, "preferredOrder": 7}] * 2
    assert (await client.post(path, {"deploymentSpecifications": same})).status == 200


async def test_members_that_say_nothing_or_what_is_so_anyway_are_taken(client: Client) -> None:
    empty = {
        "availabilityZones": [],
        "attributes": [""],
        "regions": ["LOCAL", "elsewhere"],
        "clusters": [],
        "configuration": {},
        "helmValidationPolicy": None,
        "autoscalingConfiguration": {"scaleUpDetails": None},
        "preferredOrder": 3,
    }
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    assert await deploy(client, path, {**SPEC, **empty}) == 200


async def test_an_image_that_no_cluster_runs_is_refused_with_those_that_some_run(
    client: Client,
) -> None:
    function_id, version_id = await client.create(containerImage="unknown:1")
    path = deployment_path(function_id, version_id)
    wanted = {"gpu": "H100", "minInstances": 0, "maxInstances": 1}
    told = await client.post(path, {"deploymentSpecifications": [wanted]})
    assert told.status == 400
    assert "has no command for the image 'unknown:1'; these have one: local" in told.body["detail"]


async def test_what_is_deployed_is_not_deployed_again(client: Client) -> None:
    function_id, version_id = await client.deployed()
    told = await client.post(
        deployment_path(function_id, version_id), {"deploymentSpecifications": [SPEC]}
    )
    assert told.status == 400
    assert told.body["functionStatus"] == "DEPLOYING"


async def test_of_two_who_deploy_at_once_one_wins_and_the_other_is_told(client: Client) -> None:
    for _ in range(5):
        function_id, version_id = await client.create()
        path = deployment_path(function_id, version_id)
        statuses = await asyncio.gather(*[deploy(client, path, SPEC) for _ in range(4)])
        assert statuses.count(200) == 1
        assert set(statuses) <= {200, 400, 409}


async def test_numbers_change_and_nothing_else(client: Client) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    before = (await client.get(path)).body["deployment"]

    async def put(**changes: object) -> int:
        told = await client.put(path, {"deploymentSpecifications": [{**SPEC, **changes}]})
        return told.status

    assert await put() == 200
    assert (await client.get(path)).body["deployment"] == before
    assert await put(maxInstances=5, maxRequestConcurrency=8, instanceType="large") == 200
    after = (await client.get(path)).body["deployment"]
    (spec,) = after["deploymentSpecifications"]
    assert (spec["maxInstances"], spec["maxRequestConcurrency"]) == (5, 8)
    assert after["deploymentId"] == before["deploymentId"]
    assert after["lastUpdatedAt"] > before["lastUpdatedAt"]
    for refused in ({"backend": "other"}, {"gpu": "T4"}, {"instanceType": "small"}):
        assert await put(**refused) == 400
    assert await put(gpuSpecificationId="6f9619ff-8b86-4011-b42d-00c04fc964ff") == 400


async def test_what_is_not_deployed_cannot_be_updated(client: Client) -> None:
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    assert (await client.put(path, {"deploymentSpecifications": [SPEC]})).status == 400
    assert (await client.delete(path)).status == 404


async def test_one_specification_is_patched(client: Client) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    deployment = (await client.get(path)).body["deployment"]
    by_id = f"/v2/nvcf/deployments/{deployment['deploymentId']}/gpu-specifications"
    spec_id = deployment["deploymentSpecifications"][0]["gpuSpecificationId"]
    scaling = {"autoscalingConfiguration": {"scaleUpDetails": SCALING}}
    told = await client.patch(f"{by_id}/{spec_id}", {"maxInstances": 7, **scaling})
    assert told.status == 400
    assert "autoscalingConfiguration" in told.body["detail"]
    told = await client.patch(f"{by_id}/{spec_id}", {"maxInstances": 7})
    assert told.status == 200
    assert told.body["gpuSpecification"]["maxInstances"] == 7
    platform = {"autoscalingConfigurationPolicy": "PLATFORM_CONFIGURATION"}
    assert (await client.patch(f"{by_id}/{spec_id}", platform)).status == 200
    assert (await client.patch(f"{by_id}/{spec_id}", {})).status == 400
    assert (await client.patch(f"{by_id}/{spec_id}", {"minInstances": 8})).status == 400
    assert (await client.patch(f"{by_id}/{function_id}", {"minInstances": 1})).status == 404


async def test_the_deployment_of_a_public_function_is_not_changed(client: Client) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    deployment = (await client.get(path)).body["deployment"]
    by_id = f"/v2/nvcf/deployments/{deployment['deploymentId']}"
    spec_id = deployment["deploymentSpecifications"][0]["gpuSpecificationId"]
    shared = f"/v2/nvcf/authorizations/functions/{function_id}"
    everybody = {"authorizedParties": [{"ncaId": "*"}]}
    assert (await client.post(shared, everybody)).status == 200
    patch = f"{by_id}/gpu-specifications/{spec_id}"
    assert (await client.put(path, {"deploymentSpecifications": [SPEC]})).status == 400
    assert (await client.patch(patch, {"maxInstances": 9})).status == 400
    assert (await client.get(path)).body["deployment"] == deployment
    assert (await client.delete(shared)).status == 200
    assert (await client.patch(patch, {"maxInstances": 9})).status == 200


async def test_changes_made_at_once_are_all_kept(client: Client) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    deployment = (await client.get(path)).body["deployment"]
    spec_id = deployment["deploymentSpecifications"][0]["gpuSpecificationId"]
    by_id = f"/v2/nvcf/deployments/{deployment['deploymentId']}/gpu-specifications/{spec_id}"
    changes = ({"minInstances": 0}, {"maxInstances": 9}, {"maxInstances": 9, "minInstances": 0})
    answers = await asyncio.gather(*[client.patch(by_id, change) for change in changes])
    assert [answer.status for answer in answers] == [200, 200, 200]
    (spec,) = (await client.get(path)).body["deployment"]["deploymentSpecifications"]
    assert (spec["minInstances"], spec["maxInstances"]) == (0, 9)


async def test_undeploy_at_once_leaves_nothing_and_can_be_deployed_again(client: Client) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    told = await client.delete(path)
    assert told.status == 200
    assert told.body["function"]["status"] == "INACTIVE"
    assert (await client.get(path)).status == 404
    assert await deploy(client, path, SPEC) == 200


async def test_graceful_undeploy_waits_for_what_is_queued(
    client: Client, queue: SetQueue, plane: ControlPlane
) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    queue.depths[version_id] = 3
    told = await client.delete(f"{path}?graceful=true")
    assert told.body["function"]["status"] == "INACTIVE"
    assert (await client.get(path)).body["deployment"]["functionStatus"] == "INACTIVE"
    draining = plane.catalog.deployment(version_id)
    assert draining is not None
    assert draining.draining_until is not None
    assert draining.draining_until > plane.api.clock()
    assert await deploy(client, path, SPEC) == 400
    assert (await client.delete(path)).status == 200
    assert (await client.get(path)).status == 404


async def test_graceful_undeploy_with_nothing_to_finish_is_over_at_once(client: Client) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    assert (await client.delete(f"{path}?graceful=true")).status == 200
    assert (await client.get(path)).status == 404


async def test_a_version_that_drains_is_deployed_again_once_it_is_idle(
    client: Client, queue: SetQueue
) -> None:
    """As NVIDIA's SDK restarts a deployment: it sends back what it was told after an undeploy."""
    function_id, version_id = await client.deployed(backend=None)
    path = deployment_path(function_id, version_id)
    before = (await client.get(path)).body["deployment"]
    queue.depths[version_id] = 1
    assert (await client.delete(f"{path}?graceful=true")).status == 200
    specs = {"deploymentSpecifications": before["deploymentSpecifications"]}
    assert (await client.post(path, specs)).status == 400
    queue.depths[version_id] = 0
    again = await client.post(path, specs)
    assert again.status == 200
    assert again.body["deployment"]["functionStatus"] == "DEPLOYING"
    assert again.body["deployment"]["deploymentId"] != before["deploymentId"]


@pytest.mark.parametrize("given", ["local", "LOCAL", "", None])
async def test_names_are_told_as_they_were_given(client: Client, given: str | None) -> None:
    function_id, version_id = await client.deployed(backend=given, gpu="a10G", instanceType="Large")
    path = deployment_path(function_id, version_id)
    (spec,) = (await client.get(path)).body["deployment"]["deploymentSpecifications"]
    assert spec["backend"] == (given or "")
    assert (spec["gpu"], spec["instanceType"]) == ("a10G", "Large")
    assert (await client.put(path, {"deploymentSpecifications": [spec]})).status == 200


async def test_clusters_are_told_and_taken_again(client: Client) -> None:
    function_id, version_id = await client.deployed(backend=None, clusters=["local"])
    path = deployment_path(function_id, version_id)
    told = (await client.get(path)).body["deployment"]["deploymentSpecifications"]
    assert (await client.delete(path)).status == 200
    assert (await client.post(path, {"deploymentSpecifications": told})).status == 200


async def test_a_broker_that_is_away_does_not_look_like_an_empty_queue(
    client: Client, queue: SetQueue
) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    queue.depths[version_id] = None
    told = await client.get(f"/v2/nvcf/queues/functions/{function_id}")
    assert (told.status, told.body["reason"]) == (503, "queue_unavailable")
    assert (await client.delete(f"{path}?graceful=true")).status == 200
    assert (await client.get(path)).status == 200


async def test_a_failed_deployment_says_why_and_is_replaced_by_the_next(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    deployment = plane.catalog.deployment(version_id)
    version = plane.catalog.version(function_id, version_id)
    assert deployment is not None
    assert version is not None
    why = HealthInfo(deployment.specs[0].spec_id, "A10G", "local", "large", "i-1", "no such image")
    await plane.store.put(replace(deployment, health=(why,)))
    await plane.store.put(replace(version, state=VersionState.ERROR))
    await plane.catalog.until(lambda: plane.catalog.version(function_id, version_id) != version)
    told = (await client.get(path)).body["deployment"]
    assert told["functionStatus"] == "ERROR"
    assert told["healthInfo"] == [
        {
            "icmsRequestId": deployment.deployment_id,
            "sisRequestId": deployment.deployment_id,
            "instanceId": "i-1",
            "gpu": "A10G",
            "backend": "local",
            "instanceType": "large",
            "error": "no such image",
        }
    ]
    again = await client.post(path, {"deploymentSpecifications": [SPEC]})
    assert again.body["deployment"]["functionStatus"] == "DEPLOYING"
    assert again.body["deployment"]["deploymentId"] != deployment.deployment_id
    assert "healthInfo" not in again.body["deployment"]
