"""A process that hears late of what others wrote waits for it where it must, on both backends."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.integration.gateway.api.lagging_process import Behind, Hearing
from tests.support.control import (
    IMAGE,
    Client,
    ControlPlane,
    SetQueue,
    control_plane,
    deployment_path,
)
from tests.support.nats_server import NatsServer
from tests.support.redis_server import RedisServer, shared_redis_server

__all__ = ["shared_redis_server"]


@pytest.fixture(params=["nats", "redis"])
def store_url(
    request: pytest.FixtureRequest,
    shared_nats_server: NatsServer,
    shared_redis_server: RedisServer,
) -> str:
    return shared_nats_server.url if request.param == "nats" else shared_redis_server.url


@pytest.fixture
async def behind(
    plane: ControlPlane, client: Client, store_url: str, queue: SetQueue
) -> AsyncIterator[Behind]:
    """It knows ``client``, and nothing that ``client`` does."""
    hearing = Hearing()
    async with control_plane(store_url, queue, store_at=hearing.store_at) as late:
        yield Behind(late, hearing)


async def test_what_another_process_registered_counts_before_it_was_heard_of(
    client: Client, plane: ControlPlane, behind: Behind
) -> None:
    for _ in range(50):
        await client.create()
    behind.hear_soon()
    assert (await behind.client(client).post("/v2/nvcf/functions", IMAGE)).status == 400


async def test_a_deployment_is_known_by_its_id_to_a_process_that_hears_of_it_late(
    client: Client, behind: Behind
) -> None:
    function_id, version_id = await client.deployed()
    deployment = (await client.get(deployment_path(function_id, version_id))).body["deployment"]
    by_id = f"/v2/nvcf/deployments/{deployment['deploymentId']}"
    spec_id = deployment["deploymentSpecifications"][0]["gpuSpecificationId"]
    late = behind.client(client)
    behind.hear_soon()
    told = await late.patch(f"{by_id}/gpu-specifications/{spec_id}", {"maxInstances": 9})
    assert told.status == 200
    assert (await late.get(by_id)).body["deployment"]["functionId"] == function_id
    assert (await late.get(f"/v2/nvcf/deployments/{uuid4()}")).status == 404
