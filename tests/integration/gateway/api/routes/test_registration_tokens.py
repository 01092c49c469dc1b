"""Registration tokens, and what becomes of a worker that has one."""

import asyncio
from dataclasses import replace

import pytest

from gateway.domain.model import InstanceKey, Phase
from gateway.domain.states import is_running
from tests.support.control import SCOPES, Client, deployment_path, version_path
from tests.support.identity import IdentityPlane
from wire.worker_api import CONNECT_PATH, HEARTBEAT_PATH

TOKENS = "/v2/nvcf/registrationTokens"
PLACE = {"backend": "anywhere", "gpu": "A10G"}
FACTS = {"node": "gpu-7", "pid": 12, "gpus": [{"name": "A10G", "memoryMiB": 23028}]}
BEAT = {"healthy": True, "slots": 4, "busy": 0}


@pytest.fixture
async def client(plane: IdentityPlane) -> Client:
    return await plane.client("has-workers", SCOPES)


async def token_of(client: Client, function_id: str, version_id: str) -> tuple[str, str]:
    """Return a new registration token and its id."""
    made = await client.post(f"{TOKENS}/functions/{function_id}/versions/{version_id}", {})
    assert made.status == 200, made
    return made.body["token"], made.body["tokenId"]


async def deployed(plane: IdentityPlane, client: Client, **changes: object) -> tuple[str, str]:
    ids = await client.deployed(**PLACE, **changes)
    await plane.catalog.until(lambda: plane.catalog.deployment(ids[1]) is not None)
    return ids


async def registered(plane: IdentityPlane, token: str) -> tuple[Client, str]:
    """Register a worker; return a client with its token, and its instance."""
    told = await plane.holder(token).post(CONNECT_PATH, {"worker": FACTS})
    assert told.status == 200, told
    instance_id, version_id = told.body["instanceId"], told.body["functionVersionId"]
    await plane.catalog.until(
        lambda: any(one.instance_id == instance_id for one in plane.catalog.instances(version_id))
    )
    return plane.holder(told.body["token"]), instance_id


async def test_a_worker_registers_and_gets_what_it_cannot_know(
    plane: IdentityPlane, client: Client
) -> None:
    function_id, version_id = await deployed(plane, client, maxRequestConcurrency=4)
    token, _ = await token_of(client, function_id, version_id)
    told = await plane.holder(token).post(CONNECT_PATH, {"worker": FACTS})
    ids = {"instanceId": told.body["instanceId"], "functionId": function_id}
    ids["functionVersionId"] = version_id
    assert told.body["functionVersionId"] == version_id
    assert told.body["maxRequestConcurrency"] == 4
    environment = told.body["environment"]
    assert environment["WORKER_INFERENCE__PORT"] == "8000"
    assert environment["WORKER_HEALTH__PATH"] == "/v2/health/ready"
    assert "WORKER_NATS__URLS" in environment
    # A file of the gateway's machine.
    assert "WORKER_NATS__CA_FILE" not in environment
    worker = plane.holder(told.body["token"])
    assert (await worker.post(CONNECT_PATH, ids)).status == 200
    beat = await worker.post(HEARTBEAT_PATH, {"instanceId": ids["instanceId"], **BEAT})
    assert (beat.status, "stop" in beat.body) == (200, False)
    (instance,) = plane.catalog.instances(version_id)
    assert instance.is_external
    await plane.catalog.until(lambda: plane.catalog.instances(version_id)[0].slots == 4)
    (shown,) = (await client.get(version_path(function_id, version_id))).body["function"][
        "activeInstances"
    ]
    assert shown["external"] is True
    assert shown["healthy"] is True
    assert shown["worker"] == FACTS


async def test_a_worker_above_the_maximum_is_refused_until_another_leaves(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client, maxInstances=1)
    token, _ = await token_of(client, *ids)
    worker, instance_id = await registered(plane, token)
    second = await plane.holder(token).post(CONNECT_PATH, {})
    assert second.status == 409
    assert "maxInstances" in second.body["detail"]
    another, _ = await token_of(client, *ids)
    thief = await plane.holder(another).post(CONNECT_PATH, {"instanceId": instance_id})
    assert thief.status == 409
    last = {"instanceId": instance_id, **BEAT, "stopping": True, "gone": True}
    assert (await worker.post(HEARTBEAT_PATH, last)).status == 200
    await plane.catalog.until(lambda: not plane.catalog.instances(ids[1])[0].is_connected)
    assert (await plane.holder(token).post(CONNECT_PATH, {})).status == 200


async def test_of_workers_that_register_at_once_only_the_maximum_gets_a_place(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client, maxInstances=5)
    holder = plane.holder((await token_of(client, *ids))[0])
    told = await asyncio.gather(*(holder.post(CONNECT_PATH, {}) for _ in range(20)))
    assert sorted(each.status for each in told) == [200] * 5 + [409] * 15


async def test_a_worker_whose_record_was_lost_is_the_same_instance_again(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client)
    token, _ = await token_of(client, *ids)
    worker, instance_id = await registered(plane, token)
    await plane.store.delete(InstanceKey(ids[1], instance_id))
    lost = await worker.post(HEARTBEAT_PATH, {"instanceId": instance_id, **BEAT})
    assert lost.status == 404
    again = await plane.holder(token).post(CONNECT_PATH, {"instanceId": instance_id})
    assert again.body["instanceId"] == instance_id


async def test_a_worker_that_registers_again_while_its_record_changes_is_not_refused(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client)
    token, _ = await token_of(client, *ids)
    _, instance_id = await registered(plane, token)
    await plane.store.delete(InstanceKey(ids[1], instance_id))
    # It repeats a call that takes too long: each writes the record that the others have not found.
    holder, body = plane.holder(token), {"instanceId": instance_id}
    again = await asyncio.gather(*(holder.post(CONNECT_PATH, body) for _ in range(8)))
    assert [each.status for each in again] == [200] * 8


async def test_a_worker_that_has_only_lost_its_token_goes_on_as_it_is(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client, maxInstances=1)
    token, _ = await token_of(client, *ids)
    worker, instance_id = await registered(plane, token)
    assert (await worker.post(HEARTBEAT_PATH, {"instanceId": instance_id, **BEAT})).status == 200
    key = InstanceKey(ids[1], instance_id)
    before = await plane.store.get(key)
    again = await plane.holder(token).post(CONNECT_PATH, {"instanceId": instance_id})
    assert again.status == 200
    assert await plane.store.get(key) == before
    beat = {"instanceId": instance_id, **BEAT}
    beaten = await plane.holder(again.body["token"]).post(HEARTBEAT_PATH, beat)
    assert beaten.status == 200


async def test_a_worker_is_told_why_it_cannot_register(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await client.create()
    token, _ = await token_of(client, *ids)
    waits = await plane.holder(token).post(CONNECT_PATH, {})
    assert (waits.status, "not deployed" in waits.body["detail"]) == (409, True)
    here = await client.deployed(backend="local")
    elsewhere = await plane.holder((await token_of(client, *here))[0]).post(CONNECT_PATH, {})
    assert (elsewhere.status, "external" in elsewhere.body["detail"]) == (409, True)
    assert (await client.delete(version_path(*ids))).status == 204
    listed = (await client.get(TOKENS)).body["registrationTokens"]
    assert ids[1] not in [one["functionVersionId"] for one in listed]
    assert (await plane.holder(token).post(CONNECT_PATH, {})).status == 410


async def test_a_revoked_token_registers_nobody_and_ends_the_workers_that_have_it(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client)
    token, token_id = await token_of(client, *ids)
    worker, instance_id = await registered(plane, token)
    stranger = await plane.client("someone-else", SCOPES)
    assert (await stranger.delete(f"{TOKENS}/{token_id}")).status == 404
    assert (await stranger.get(TOKENS)).body == {"registrationTokens": []}
    listed = (await client.get(TOKENS)).body["registrationTokens"]
    assert token_id in [one["tokenId"] for one in listed]
    assert all("token" not in one for one in listed)
    assert (await client.delete(f"{TOKENS}/{token_id}")).status == 204
    assert (await plane.holder(token).post(CONNECT_PATH, {})).status == 403
    await plane.until_revoked(ids[1], token_id)
    told = await worker.post(HEARTBEAT_PATH, {"instanceId": instance_id, **BEAT})
    assert told.body["stop"] == "its registration token was revoked"
    names = {"functionId": ids[0], "functionVersionId": ids[1], "instanceId": instance_id}
    assert (await worker.post(CONNECT_PATH, names)).status == 403


async def test_a_worker_of_an_undeployed_version_is_told_to_stop(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client)
    token, _ = await token_of(client, *ids)
    worker, instance_id = await registered(plane, token)
    assert (await client.delete(f"{deployment_path(*ids)}")).status == 200
    found = await plane.store.get(InstanceKey(ids[1], instance_id))
    assert found is not None
    stopping = replace(found[0], phase=Phase.STOPPING)  # type: ignore[type-var]
    await plane.store.put(stopping, found[1])  # type: ignore[arg-type]
    told = await worker.post(HEARTBEAT_PATH, {"instanceId": instance_id, **BEAT})
    assert told.body["stop"] == "the version was undeployed"
    assert not is_running(stopping, 0.0)  # type: ignore[arg-type]


async def test_a_registration_token_is_good_for_nothing_else(
    plane: IdentityPlane, client: Client
) -> None:
    ids = await deployed(plane, client)
    token, _ = await token_of(client, *ids)
    other = await client.create()
    holder = plane.holder(token)
    wrong = {"functionId": other[0], "functionVersionId": other[1]}
    assert (await holder.post(CONNECT_PATH, wrong)).status == 403
    assert (await holder.get("/v2/nvcf/functions")).status == 403
    assert (await holder.post(HEARTBEAT_PATH, {"instanceId": "x", **BEAT})).status == 401
