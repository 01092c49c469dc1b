"""Queues, positions, GPUs over the API (`docs/wire.md` §12.1, §12.2, §12.3)."""

from uuid import uuid4

from gateway.domain.model import ResourceScope
from gateway.domain.queued_request import QueuedRequest
from tests.support.control import IMAGE, SCOPES, Client, ControlPlane, SetQueue, deployment_path

QUEUES = "/v2/nvcf/queues/functions"


async def test_depth_is_told_for_every_deployed_version(client: Client, queue: SetQueue) -> None:
    function_id, version_id = await client.deployed()
    told = await client.post(f"/v2/nvcf/functions/{function_id}/versions", IMAGE)
    idle = told.body["function"]["versionId"]
    queue.depths[version_id] = 7
    told = await client.get(f"{QUEUES}/{function_id}")
    element = {
        "functionId": function_id,
        "functionVersionId": version_id,
        "functionName": "echo",
        "functionStatus": "DEPLOYING",
        "queueDepth": 7,
        "size": 7,
    }
    assert told.body == {"functionId": function_id, "queues": [element]}
    assert (await client.get(f"{QUEUES}/{function_id}/versions/{version_id}")).body == told.body
    assert (await client.get(f"{QUEUES}/{function_id}/versions/{idle}")).status == 404
    await client.delete(deployment_path(function_id, version_id))
    assert (await client.get(f"{QUEUES}/{function_id}")).status == 404


async def test_a_place_in_line_is_for_the_caller_and_the_owner_alone(
    client: Client, other: Client, queue: SetQueue
) -> None:
    function_id, version_id = await client.deployed()
    request_id = str(uuid4())
    path = f"/v2/nvcf/queues/{request_id}/position"
    assert (await client.get(path)).status == 404
    for place, shown in ((1, 1), (0, 0), (1000, 1000), (4711, 1000)):
        queue.in_line[request_id] = QueuedRequest(function_id, version_id, "caller", place)
        told = await client.get(path)
        assert told.status == 200
        assert told.body == {
            "functionId": function_id,
            "functionVersionId": version_id,
            "positionInQueue": shown,
            "position": shown,
        }
    assert (await other.get(path)).status == 404


async def test_a_key_for_one_version_learns_no_place_in_another_ones_line(
    client: Client, plane: ControlPlane, queue: SetQueue
) -> None:
    function_id, version_id = await client.deployed()
    told = await client.post(f"/v2/nvcf/functions/{function_id}/versions", IMAGE)
    second = told.body["function"]
    reach = ResourceScope(versions=frozenset({f"{function_id}/{second['versionId']}"}))
    narrow = await plane.client(second["ncaId"], SCOPES, reach)
    request_id = str(uuid4())
    path = f"/v2/nvcf/queues/{request_id}/position"
    queue.in_line[request_id] = QueuedRequest(function_id, version_id, second["ncaId"], 1)
    assert (await narrow.get(path)).status == 403
    queue.in_line[request_id] = QueuedRequest(function_id, second["versionId"], second["ncaId"], 1)
    assert (await narrow.get(path)).status == 200


async def test_gpus_are_those_of_the_clusters_that_the_account_may_use(client: Client) -> None:
    told = await client.get("/v2/nvcf/supportedGpus")
    assert [(one["gpu"], one["backend"]) for one in told.body] == [
        ("A10G", "local"),
        ("T4", "local"),
        ("H100", "other"),
    ]
    groups = (await client.get("/v2/nvcf/clusterGroups")).body["clusterGroups"]
    assert [group["name"] for group in groups] == ["local", "other"]
    assert groups[0]["gpus"][0]["instanceTypes"][1] == {
        "name": "large",
        "description": "",
        "default": True,
    }
    assert groups[0]["clusters"][0]["name"] == "local"
