"""The checklist of `docs/wire.md` §18, in its order.

The API on a real store beside a reconciler that leads; instances run nothing, so that a test says
when a worker joins and when it goes. That every answer passes the models of the strict SDKs is
seen to by `tests/integration/gateway/conftest.py`.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import uuid4

import pytest

from gateway.domain.model import Instance, ResourceScope
from gateway.domain.queued_request import QueuedRequest
from gateway.errors import GatewayError
from gateway.provision.undeploy_notices import UndeployNotices
from gateway.routing.admission import Admission
from gateway.routing.call_head import CallHead
from gateway.routing.router import Router
from gateway.store.names import DETAILS
from queueing.nats.bus import NatsBus
from queueing.nats.connection import NatsConnection
from queueing.nats.jetstream import JetStream, StreamSettings
from queueing.nats.login import ConnectionOptions
from runtime.ids import new_uuid
from tests.integration.gateway.api.full_store import full
from tests.support.api_keys import key_authenticator
from tests.support.control import (
    IMAGE,
    SCOPES,
    SPEC,
    ApiResponse,
    Client,
    ControlPlane,
    SetQueue,
    deployment_path,
    version_path,
)
from tests.support.idle_backend import Fleet, running_fleet
from tests.support.nats_server import NatsServer
from tests.support.queues import request_subject
from tests.support.strict_sdk import OLD_SDK
from tests.support.waiting import PATIENCE_S
from wire.subjects import consumer_name, stream_name

FUNCTIONS = "/v2/nvcf/functions"
REGION = "local"


class Version(NamedTuple):
    """A deployed version, and everything a test does to it."""

    plane: ControlPlane
    client: Client
    fleet: Fleet
    function_id: str
    version_id: str

    @property
    def path(self) -> str:
        return deployment_path(self.function_id, self.version_id)

    @property
    def state(self) -> str:
        version = self.plane.catalog.version(self.function_id, self.version_id)
        return "" if version is None else version.state.value

    def instances(self) -> list[Instance]:
        return sorted(self.plane.catalog.instances(self.version_id), key=lambda i: i.instance_id)

    async def until(self, state: str) -> None:
        await self.plane.catalog.until(lambda: self.state == state)

    async def until_started(self, count: int) -> list[str]:
        await self.plane.catalog.until(lambda: len(self.instances()) == count)
        return [one.instance_id for one in self.instances()]

    async def joins(self, instance_id: str) -> None:
        await self.fleet.joins(self.version_id, instance_id)

    async def leaves(self, instance_id: str) -> None:
        await self.fleet.leaves(self.version_id, instance_id)

    def invoked(self, version_id: str | None) -> int:
        """Return the status with which an invocation is refused, 200 if it is let in."""
        return invoked(self.plane, self.client, self.function_id, version_id)


def invoked(plane: ControlPlane, caller: Client, function_id: str, version_id: str | None) -> int:
    model = plane.catalog.model
    authenticate = key_authenticator(model).authenticate
    admission = Admission(authenticate, Router(model, random.random))
    bearer = f"Bearer {caller.key}".encode()
    try:
        admission.admit(CallHead(function_id, version_id, bearer, None), time.time())
    except GatewayError as error:
        return error.status
    return 200


@pytest.fixture
async def data(shared_nats_server: NatsServer) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(ConnectionOptions(servers=(shared_nats_server.url,)))
    connection.start()
    await connection.wait_connected()
    yield connection
    await connection.close()


@pytest.fixture
async def fleet(plane: ControlPlane, data: NatsConnection, queue: SetQueue) -> AsyncIterator[Fleet]:
    async with running_fleet(plane.store, data) as fleet:
        yield fleet


async def deploy(plane: ControlPlane, client: Client, fleet: Fleet, **changes: object) -> Version:
    function_id, version_id = await client.deployed(**changes)
    return Version(plane, client, fleet, function_id, version_id)


def assert_refused(told: ApiResponse, status: int) -> None:
    assert told.status == status, told
    assert told.headers["content-type"] == "application/problem+json"
    for member in ("type", "title", "detail", "instance", "requestId"):
        assert told.body[member], member
    assert told.body["status"] == status


async def test_create(client: Client) -> None:
    told = await client.post(FUNCTIONS, {**IMAGE, "name": "first"})
    function = told.body["function"]
    assert (told.status, function["status"]) == (200, "INACTIVE")
    assert function["description"] == "first"
    assert function["apiBodyFormat"] == "CUSTOM"
    assert function["functionType"] == "DEFAULT"
    assert function["health"]["uri"] == function["healthUri"] == "/v2/health/ready"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"name": ""}, 400),
        ({"name": "-a"}, 400),
        ({"name": "a" * 129}, 400),
        ({"name": "a"}, 200),
        ({"name": "a" * 128}, 200),
        ({"containerImage": None}, 400),
        ({"helmChart": "oci://chart", "helmChartServiceName": "svc"}, 400),
        ({"helmChart": "oci://chart", "containerImage": None}, 400),
        ({"helmChart": "oci://c", "helmChartServiceName": "s", "containerImage": None}, 200),
    ],
)
async def test_names_and_sources(client: Client, changes: dict[str, object], status: int) -> None:
    told = await client.post(FUNCTIONS, {**IMAGE, **changes})
    assert told.status == status
    if status == 400:
        assert_refused(told, 400)


async def test_a_second_version(client: Client, other: Client) -> None:
    function_id, first = await client.create()
    path = f"{FUNCTIONS}/{function_id}/versions"
    second = (await client.post(path, IMAGE)).body["function"]
    assert second["id"] == function_id
    assert second["versionId"] != first
    listed = (await client.get(path)).body["functions"]
    assert {one["versionId"] for one in listed} == {first, second["versionId"]}
    assert_refused(await other.get(path), 404)
    assert_refused(await other.post(path, IMAGE), 404)


async def test_deploy(client: Client) -> None:
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    body = {"backend": "local", "gpu": "A10G", "maxInstances": 2, "minInstances": 1}
    for refused in ({"minInstances": 3}, {"gpu": "unheard-of"}):
        told = await client.post(path, {"deploymentSpecifications": [body | refused]})
        assert_refused(told, 400)
    assert_refused(await client.post(path, {"deploymentSpecifications": []}), 400)
    assert_refused(await client.get(path), 404)
    told = await client.post(path, {"deploymentSpecifications": [body]})
    assert (told.status, told.body["deployment"]["functionStatus"]) == (200, "DEPLOYING")
    assert_refused(await client.post(path, {"deploymentSpecifications": [body]}), 400)


async def test_deploy_with_all_minimums_zero(client: Client) -> None:
    function_id, version_id = await client.create()
    spec = {**SPEC, "minInstances": 0}
    told = await client.post(
        deployment_path(function_id, version_id), {"deploymentSpecifications": [spec]}
    )
    assert told.body["deployment"]["functionStatus"] == "ACTIVE"


async def test_get_and_update_a_deployment(client: Client) -> None:
    function_id, version_id = await client.create()
    path = deployment_path(function_id, version_id)
    assert_refused(await client.get(path), 404)
    assert_refused(await client.put(path, {"deploymentSpecifications": [SPEC]}), 400)
    await client.post(path, {"deploymentSpecifications": [SPEC]})
    assert (await client.get(path)).status == 200
    told = await client.put(
        path, {"deploymentSpecifications": [{**SPEC, "minInstances": 0, "maxInstances": 3}]}
    )
    (spec,) = told.body["deployment"]["deploymentSpecifications"]
    assert (told.status, spec["minInstances"], spec["maxInstances"]) == (200, 0, 3)
    other = {**SPEC, "backend": "other"}
    assert_refused(await client.put(path, {"deploymentSpecifications": [other]}), 400)


async def test_states_follow_the_workers_and_invocations_follow_the_states(
    plane: ControlPlane, client: Client, fleet: Fleet
) -> None:
    version = await deploy(plane, client, fleet, minInstances=2)
    by_id, by_function = version.version_id, None
    first, second = await version.until_started(2)
    assert version.invoked(by_id) == version.invoked(by_function) == 200
    await version.joins(first)
    await version.joins(second)
    await version.until("ACTIVE")
    assert version.invoked(by_id) == version.invoked(by_function) == 200
    await version.leaves(first)
    await version.until("DEGRADING")
    assert version.invoked(by_id) == version.invoked(by_function) == 200
    await version.leaves(second)
    await version.until("DEGRADED")
    assert version.invoked(by_id) == version.invoked(by_function) == 200
    await version.joins(second)
    await version.until("DEGRADING")
    await version.joins(first)
    await version.until("ACTIVE")
    told = await client.get(version_path(version.function_id, version.version_id))
    shown = told.body["function"]["activeInstances"]
    assert {one["instanceId"] for one in shown} == {first, second}


async def test_the_raw_call_hears_degraded_while_the_old_sdks_call_succeeds(
    plane: ControlPlane, client: Client, fleet: Fleet
) -> None:
    version = await deploy(plane, client, fleet)
    (only,) = await version.until_started(1)
    await version.joins(only)
    await version.until("ACTIVE")
    await version.leaves(only)
    await version.until("DEGRADED")
    raw = await client.get(version.path)
    assert raw.body["deployment"]["functionStatus"] == "DEGRADED"
    told = (await client.get(version.path, headers=OLD_SDK)).body["deployment"]
    assert (told["functionStatus"], told["statusDetail"]) == ("DEPLOYING", "DEGRADED")


async def test_all_instances_fail(plane: ControlPlane, client: Client, fleet: Fleet) -> None:
    version = await deploy(plane, client, fleet)
    (only,) = await version.until_started(1)
    fleet.backend.can_never_run(only, "no such image\nlast line of the log")
    await version.until("ERROR")
    told = (await client.get(version.path)).body["deployment"]
    assert told["functionStatus"] == "ERROR"
    assert "no such image" in told["healthInfo"][0]["error"]
    assert version.invoked(version.version_id) == 404
    again = await client.post(version.path, {"deploymentSpecifications": [SPEC]})
    assert again.body["deployment"]["functionStatus"] == "DEPLOYING"
    assert "healthInfo" not in again.body["deployment"]
    (second,) = await version.until_started(1)
    assert second != only
    await version.joins(second)
    await version.until("ACTIVE")
    assert (await client.delete(version.path)).body["function"]["status"] == "INACTIVE"


async def test_graceful_undeploy_with_work(
    plane: ControlPlane, client: Client, fleet: Fleet, queue: SetQueue, data: NatsConnection
) -> None:
    version = await deploy(plane, client, fleet)
    (only,) = await version.until_started(1)
    await version.joins(only)
    await version.until("ACTIVE")
    await enqueue(plane, data, version.version_id)
    queue.depths[version.version_id] = 1
    told = await client.delete(f"{version.path}?graceful=true")
    assert (told.status, told.body["function"]["status"]) == (200, "INACTIVE")
    assert version.invoked(version.version_id) == 404
    assert (await client.get(version.path)).body["deployment"]["functionStatus"] == "INACTIVE"
    again = await client.post(version.path, {"deploymentSpecifications": [SPEC]})
    assert_refused(again, 400)
    assert version.instances()
    await work_off(plane, version.version_id)
    await plane.catalog.until(lambda: not plane.catalog.deployment(version.version_id))
    assert_refused(await client.get(version.path), 404)
    await plane.catalog.until(lambda: not version.instances())


async def test_undeploy_at_once_ends_what_is_queued(
    plane: ControlPlane, client: Client, fleet: Fleet, data: NatsConnection
) -> None:
    version = await deploy(plane, client, fleet)
    (only,) = await version.until_started(1)
    await version.joins(only)
    await version.until("ACTIVE")
    ended = asyncio.Event()
    notices = UndeployNotices(
        NatsBus(data), lambda version_id: ended.set() if version_id == version.version_id else None
    )
    await enqueue(plane, data, version.version_id)
    told = await client.delete(version.path)
    assert (told.status, told.body["function"]["status"]) == (200, "INACTIVE")
    assert_refused(await client.get(version.path), 404)
    async with asyncio.timeout(1.0):
        await ended.wait()
    notices.close()
    await plane.catalog.until(lambda: not version.instances())


async def enqueue(plane: ControlPlane, data: NatsConnection, version_id: str) -> None:
    await JetStream(data).ensure(REGION, version_id, StreamSettings())
    subject = request_subject(REGION, version_id, new_uuid())
    await plane.store.connection.connected_client().jetstream().publish(subject, b"one")


async def work_off(plane: ControlPlane, version_id: str) -> None:
    """Lease and acknowledge everything, as a worker does."""
    stream = stream_name(REGION, version_id)
    client = plane.store.connection.connected_client()
    subscription = await client.jetstream().pull_subscribe_bind(consumer_name(stream), stream)
    (message,) = await subscription.fetch(1, timeout=PATIENCE_S)
    await message.ack_sync()
    await subscription.unsubscribe()


async def test_a_deleted_version_ends_though_its_deployment_could_not_be_deleted(
    plane: ControlPlane, client: Client, fleet: Fleet
) -> None:
    version = await deploy(plane, client, fleet)
    (only,) = await version.until_started(1)
    await version.joins(only)
    await version.until("ACTIVE")
    async with full(plane, DETAILS):
        path = version_path(version.function_id, version.version_id)
        assert (await client.delete(path)).status == 204
        assert version.invoked(version.version_id) == 404
        await version.until_started(0)


async def test_delete(client: Client) -> None:
    path = version_path(*await client.create())
    told = await client.delete(path)
    assert (told.status, told.body) == (204, b"")
    assert_refused(await client.delete(path), 404)
    assert_refused(await client.get(path), 404)


async def test_visibility_and_sharing(client: Client, other: Client) -> None:
    own, version_id = await client.create()
    theirs, _ = await other.create()
    me = (await client.get(version_path(own, version_id))).body["function"]["ncaId"]
    party = {"authorizedParties": [{"ncaId": me}]}
    path = f"/v2/nvcf/authorizations/functions/{theirs}"
    assert (await other.post(path, party)).status == 200

    async def listed(query: str) -> set[str]:
        told = await client.get(f"{FUNCTIONS}?{query}")
        assert told.status == 200
        return {one["id"] for one in told.body["functions"]} & {own, theirs}

    assert await listed("visibility=private") == {own}
    assert await listed("visibility=authorized") == {theirs}
    assert await listed("visibility=private&visibility=authorized") == {own, theirs}
    assert await listed("visibility=private,authorized") == {own, theirs}
    assert await listed("visibility=public") == set()
    assert_refused(await client.get(f"{FUNCTIONS}?visibility=secret"), 400)
    (shared,) = (await client.get(f"{FUNCTIONS}?visibility=authorized")).body["functions"]
    assert shared["ownedByDifferentAccount"] is True
    assert not {"inferenceUrl", "containerImage", "secrets", "activeInstances"} & set(shared)


async def test_queues(client: Client, other: Client, queue: SetQueue) -> None:
    function_id, version_id = await client.create()
    path = f"/v2/nvcf/queues/functions/{function_id}"
    assert_refused(await client.get(path), 404)
    await client.post(
        deployment_path(function_id, version_id), {"deploymentSpecifications": [SPEC]}
    )
    queue.depths[version_id] = 3
    for asked in (path, f"{path}/versions/{version_id}"):
        (one,) = (await client.get(asked)).body["queues"]
        assert (one["functionVersionId"], one["queueDepth"]) == (version_id, 3)
        assert_refused(await other.get(asked), 404)
    request_id = str(uuid4())
    asked = f"/v2/nvcf/queues/{request_id}/position"
    assert_refused(await client.get(asked), 404)
    for place, told in ((0, 0), (1, 1), (1000, 1000), (1001, 1000)):
        queue.in_line[request_id] = QueuedRequest(function_id, version_id, "someone", place)
        assert (await client.get(asked)).body["positionInQueue"] == told
    assert_refused(await other.get(asked), 404)


async def test_credentials(plane: ControlPlane, client: Client) -> None:
    function_id, version_id = await client.create()
    second = await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE)
    function = second.body["function"]
    path = version_path(function_id, version_id)
    assert_refused(await plane.stranger().get(path), 401)
    assert_refused(await Client(plane.session, "nvapi-" + "0" * 64).get(path), 401)
    assert_refused(await Client(plane.session, "not-a-key").get(path), 401)
    account = function["ncaId"]
    reader = await plane.client(account, frozenset({"list_functions"}))
    assert_refused(await reader.delete(path), 403)
    assert_refused(await reader.post(FUNCTIONS, {}), 403)
    reach = ResourceScope(versions=frozenset({f"{function_id}/{version_id}"}))
    narrow = await plane.client(account, SCOPES, reach)
    assert (await narrow.get(path)).status == 200
    hidden = await narrow.get(version_path(function_id, function["versionId"]))
    assert hidden.status in {403, 404}
    assert_refused(hidden, hidden.status)
    assert invoked(plane, narrow, function_id, None) == 403
    elsewhere = version_path(*await (await plane.client(f"x-{uuid4().hex}")).create())
    assert_refused(await narrow.get(elsewhere), 404)


async def test_a_public_function_is_not_changed_by_its_owner(client: Client) -> None:
    function_id, version_id = await client.create()
    shared = f"/v2/nvcf/authorizations/functions/{function_id}"
    everybody = {"authorizedParties": [{"ncaId": "*"}]}
    assert (await client.post(shared, everybody)).status == 200
    path = deployment_path(function_id, version_id)
    for told in (
        await client.post(path, {"deploymentSpecifications": [SPEC]}),
        await client.delete(path),
        await client.delete(version_path(function_id, version_id)),
        await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE),
        await client.get(f"/v2/nvcf/queues/functions/{function_id}"),
    ):
        assert_refused(told, 400)
    assert (await client.delete(shared)).status == 200


async def test_errors_of_the_framework_are_problem_documents_too(client: Client) -> None:
    assert_refused(await client.get("/v2/nvcf/no-such-thing"), 404)
    told = await client.patch(FUNCTIONS, {})
    assert_refused(told, 405)
    assert told.headers["allow"]
    assert_refused(await client.post(FUNCTIONS, data=b"{}"), 415)
    assert_refused(await client.get(f"{FUNCTIONS}/no-uuid/versions"), 400)
