"""Telemetry endpoints: sealed in the store, opened for instances, never told."""

import asyncio
import logging
from typing import Any

import pytest

from gateway.domain.model import Account
from gateway.errors import Conflict
from tests.support.control import SCOPES, SPEC, Client, deployment_path, version_path
from tests.support.identity import IdentityPlane

TELEMETRIES = "/v2/nvcf/telemetries"
VALUE = "hunter2-hunter2"
SENDER = SCOPES | {"manage_telemetries", "update_secrets"}


def body(name: str = "collector", **changes: object) -> dict[str, object]:
    return {
        "endpoint": "https://otel.example:4318",
        "protocol": "HTTP",
        "provider": "OTEL_COLLECTOR",
        "types": ["TRACES", "LOGS"],
        "secret": {"name": name, "value": VALUE},
        **changes,
    }


@pytest.fixture
async def client(plane: IdentityPlane, account: str) -> Client:
    return await plane.client(account, SENDER)


async def made(client: Client, **changes: object) -> str:
    """Create a telemetry; return its id."""
    created = await client.post(TELEMETRIES, body(**changes))  # type: ignore[arg-type]  # a name
    assert created.status == 200, created
    return str(created.body["telemetry"]["telemetryId"])


async def environment(plane: IdentityPlane, account: str, ids: tuple[str, str]) -> dict[str, str]:
    """Return what an instance gets."""
    details = await plane.api.stores.of(account).details(*ids)
    assert details is not None
    return dict(await plane.api.telemetry_endpoints.environment_of(details[0]))


async def test_a_telemetry_is_made_listed_and_deleted(client: Client) -> None:
    created = await client.post(TELEMETRIES, body())
    shown = created.body["telemetry"]
    assert {name: shown[name] for name in shown if name not in ("telemetryId", "createdAt")} == {
        "name": "collector",
        "endpoint": "https://otel.example:4318",
        "protocol": "HTTP",
        "provider": "OTEL_COLLECTOR",
        "types": ["LOGS", "TRACES"],
    }
    path = f"{TELEMETRIES}/{shown['telemetryId']}"
    assert (await client.get(path)).body == created.body
    assert (await client.get(TELEMETRIES)).body == {"telemetries": [shown]}
    assert (await client.delete(path)).status == 204
    assert (await client.get(TELEMETRIES)).body == {"telemetries": []}
    for gone in (await client.get(path), await client.delete(path)):
        assert gone.status == 404


async def test_instances_of_a_version_that_names_it_send_there(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    telemetry_id = await made(client)
    named = {"telemetries": {"tracesTelemetryId": telemetry_id}}
    ids = await client.create(**named)
    shown = (await client.get(version_path(*ids))).body["function"]
    assert shown["telemetries"] == named["telemetries"]
    assert await environment(plane, account, ids) == {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://otel.example:4318/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{VALUE}",
    }
    secret = {"secret": {"name": "collector", "value": "n3w"}}
    changed = await client.put(f"/v2/nvcf/secrets/telemetries/{telemetry_id}", secret)
    assert changed.status == 204
    found = await environment(plane, account, ids)
    assert found["OTEL_EXPORTER_OTLP_TRACES_HEADERS"] == "authorization=Bearer%20n3w"
    assert await environment(plane, account, await client.create()) == {}


async def test_a_telemetry_that_a_version_names_stays(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    telemetry_id = await made(client)
    ids = await client.create(telemetries={"logsTelemetryId": telemetry_id.upper()})
    refused = await client.delete(f"{TELEMETRIES}/{telemetry_id}")
    assert refused.status == 400
    assert ids[1] in refused.body["detail"]
    # As if it had been deleted while the version was registered.
    await plane.api.telemetry_endpoints.delete(account)
    with pytest.raises(Conflict, match="was deleted"):
        await environment(plane, account, ids)
    refused = await client.post(deployment_path(*ids), {"deploymentSpecifications": [SPEC]})
    assert (refused.status, "no such telemetry" in refused.body["detail"]) == (400, True)
    assert (await client.delete(version_path(*ids))).status == 204
    other = await made(client)
    assert (await client.delete(f"{TELEMETRIES}/{other}")).status == 204


async def test_a_version_that_cannot_send_is_not_registered_and_not_deployed(
    plane: IdentityPlane, client: Client
) -> None:
    telemetry_id = await made(client)
    for changes in (
        {"telemetries": {"metricsTelemetryId": telemetry_id}},
        {"telemetries": {"logsTelemetryId": "6f9619ff-8b86-4011-b42d-00c04fc964ff"}},
        {
            "telemetries": {"logsTelemetryId": telemetry_id},
            "containerEnvironment": [{"key": "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "value": "x"}],
        },
    ):
        wanted = {"name": "f", "inferenceUrl": "/", "containerImage": "img:1", **changes}
        refused = await client.post("/v2/nvcf/functions", wanted)
        assert (refused.status, "telemetries." in refused.body["detail"]) == (400, True)
    owner = await plane.client("has-workers", SENDER)
    await plane.api.telemetry_endpoints.delete("has-workers")
    ids = await owner.create(telemetries={"logsTelemetryId": await made(owner)})
    spec = {"gpu": "A10G", "backend": "anywhere", "minInstances": 0, "maxInstances": 1}
    refused = await owner.post(deployment_path(*ids), {"deploymentSpecifications": [spec]})
    assert refused.status == 400
    assert "OTEL_EXPORTER_OTLP_" in refused.body["detail"]


async def test_of_many_that_are_made_at_once_as_many_are_there_as_are_allowed(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    await plane.api.identity.credentials.put(Account(account, "name", max_telemetries=3), 0)
    created = await asyncio.gather(
        *(client.post(TELEMETRIES, body(f"t{number}")) for number in range(6))
    )
    assert sorted(one.status for one in created) == [200, 200, 200, 400, 400, 400]
    listed = (await client.get(TELEMETRIES)).body["telemetries"]
    assert len(listed) == 3
    again = await client.post(TELEMETRIES, body(listed[0]["name"]))
    assert again.status == 400


async def test_secrets_of_telemetries_are_in_no_response_no_log_and_not_in_the_store(
    plane: IdentityPlane, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    telemetry_id = await made(client)
    secrets = f"/v2/nvcf/secrets/telemetries/{telemetry_id}"
    grafana: dict[str, Any] = {"name": "g", "value": {"instanceId": VALUE}}
    responses = [
        await client.post(TELEMETRIES, body()),
        await client.post(TELEMETRIES, body("d", provider="DATADOG")),
        await client.post(TELEMETRIES, body(provider="GRAFANA_CLOUD", secret=grafana)),
        await client.post(TELEMETRIES, body(f"{VALUE} ")),
        await client.post(TELEMETRIES, body(endpoint=f"https://{VALUE}@otel.example")),
        await client.put(secrets, {"secret": {"name": "other", "value": VALUE}}),
        await client.put(secrets, {"secret": {"name": "collector", "value": f"{VALUE}\n"}}),
        await client.get(TELEMETRIES),
    ]
    assert [one.status for one in responses] == [400] * 7 + [200]
    for response in responses:
        assert VALUE not in str(response.body)
    assert VALUE not in caplog.text
    for entry in await plane.store.entries("secrets"):
        assert VALUE.encode() not in (entry.data or b"")


async def test_telemetries_of_others_do_not_exist(plane: IdentityPlane, client: Client) -> None:
    telemetry_id = await made(client)
    other = await plane.client("other", SENDER)
    assert (await other.get(f"{TELEMETRIES}/{telemetry_id}")).status == 404
    assert (await other.get(TELEMETRIES)).body == {"telemetries": []}
    named = {"telemetries": {"logsTelemetryId": telemetry_id}}
    wanted = {"name": "f", "inferenceUrl": "/", "containerImage": "img:1", **named}
    assert (await other.post("/v2/nvcf/functions", wanted)).status == 400
    unscoped = await plane.client("other", SCOPES)
    assert (await unscoped.get(TELEMETRIES)).status == 403


async def test_with_its_account_a_telemetry_goes(
    plane: IdentityPlane, client: Client, account: str
) -> None:
    await plane.api.identity.credentials.put(Account(account, "name"), 0)
    await made(client)
    setup = await plane.admin("nvcf-default")
    assert (await setup.delete(f"/v2/nvcf/accounts/{account}")).status == 204
    assert await plane.api.telemetry_endpoints.of(account) == ()
