"""Registry credentials: sealed in the store, given to pods that pull, never told."""

import json
import logging
from base64 import b64encode

import pytest

from tests.support.control import SCOPES, Client
from tests.support.identity import IdentityPlane

CREDENTIALS = "/v2/nvcf/registry-credentials"
ACCOUNT = "has-pods"
PASSWORD = "hunter2-hunter2"
LOGIN = b64encode(f"me:{PASSWORD}".encode()).decode()
PULLER = SCOPES | {"manage_registry_credentials"}


def body(hostname: str = "nvcr.io", **changes: object) -> dict[str, object]:
    return {
        "registryHostname": hostname,
        "secret": {"name": "mine", "value": LOGIN},
        "artifactTypes": ["CONTAINER"],
        "tags": ["a"],
        "description": "ours",
        **changes,
    }


@pytest.fixture
async def client(plane: IdentityPlane) -> Client:
    await plane.api.registry_credentials.delete(ACCOUNT)
    return await plane.client(ACCOUNT, PULLER)


async def logins(plane: IdentityPlane, client: Client, image: str) -> str:
    """Return what a pod with this image gets."""
    ids = await client.create(containerImage=image)
    details = await plane.api.stores.of(ACCOUNT).details(*ids)
    assert details is not None
    return await plane.api.registry_credentials.logins_of(details[0])


async def test_a_pod_gets_the_login_of_its_images_registry_and_the_new_one_after_a_change(
    plane: IdentityPlane, client: Client
) -> None:
    created = await client.post(CREDENTIALS, body())
    shown = created.body["registryCredential"]
    assert {name: shown[name] for name in shown if not name.endswith(("At", "Id"))} == {
        "registryCredentialName": "mine",
        "registryName": "nvcr.io",
        "registryHostname": "nvcr.io",
        "artifactTypes": ["CONTAINER"],
        "tags": ["a"],
        "description": "ours",
        "provisionedBy": "USER",
    }
    path = f"{CREDENTIALS}/{shown['registryCredentialId']}"
    assert (await client.get(path)).body == created.body
    assert (await client.get(CREDENTIALS)).body == {"registryCredentials": [shown]}
    found = json.loads(await logins(plane, client, "nvcr.io/acme/demo:1"))
    assert found == {"auths": {"nvcr.io": {"auth": LOGIN}}}
    assert await logins(plane, client, "ghcr.io/acme/demo:1") == ""
    other = b64encode(b"me:other").decode()
    changed = await client.patch(path, {"secret": {"name": "renamed", "value": other}})
    assert changed.body["registryCredential"]["registryCredentialName"] == "renamed"
    found = json.loads(await logins(plane, client, "nvcr.io/acme/demo:2"))
    assert found["auths"]["nvcr.io"]["auth"] == other
    assert (await client.patch(path, {"artifactTypeEnums": ["CONTAINER"]})).status == 200
    assert (await client.delete(path)).status == 204
    assert await logins(plane, client, "nvcr.io/acme/demo:3") == ""
    for gone in (await client.get(path), await client.patch(path, {"secret": body()["secret"]})):
        assert gone.status == 404


async def test_lists_are_filtered_and_say_which_registries_are_recognized(client: Client) -> None:
    for hostname in ("docker.io", "Registry.example:5000"):
        assert (await client.post(CREDENTIALS, body(hostname))).status == 200
    for query, count in (
        ("", 2),
        ("?artifactType=CONTAINER&artifactType=HELM", 2),
        ("?artifactType=HELM,MODEL", 0),
        ("?provisionedBy=SYSTEM", 0),
        ("?provisionedBy=user", 2),
    ):
        listed = (await client.get(f"{CREDENTIALS}{query}")).body["registryCredentials"]
        assert len(listed) == count, query
    assert (await client.get("/v2/nvcf/recognized-registries")).body == {
        "recognizedRegistries": {"CONTAINER": [{"name": "every registry", "hostname": "*"}]}
    }


async def test_what_could_have_no_effect_is_refused(plane: IdentityPlane, client: Client) -> None:
    assert (await client.post(CREDENTIALS, body("docker.io"))).status == 200
    assert (await client.post(CREDENTIALS, body("index.docker.io"))).status == 409
    for changes in (
        {"artifactTypes": ["CONTAINER", "HELM"]},
        {"artifactTypes": []},
        {"registryHostname": "https://nvcr.io"},
        {"secret": {"name": "mine", "value": "bm9jb2xvbg=="}},
    ):
        assert (await client.post(CREDENTIALS, body(**changes))).status == 400  # type: ignore[arg-type]  # no host
    without = await plane.client("without-pods", PULLER)
    refused = await without.post(CREDENTIALS, body())
    assert refused.status == 400
    assert "kubernetes" in refused.body["detail"]
    assert (await without.get(CREDENTIALS)).body == {"registryCredentials": []}
    recognized = await without.get("/v2/nvcf/recognized-registries")
    assert recognized.body == {"recognizedRegistries": {}}


async def test_logins_are_in_no_response_no_log_and_not_in_the_store(
    plane: IdentityPlane, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    responses = [
        await client.post(CREDENTIALS, body()),
        await client.post(CREDENTIALS, body()),
        await client.post(CREDENTIALS, body("x", artifactTypes=["MODEL"])),
        await client.post(CREDENTIALS, body("x", secret={"name": "?", "value": LOGIN})),
        await client.post(CREDENTIALS, body("x", secret={"name": "a", "value": PASSWORD})),
        await client.get(CREDENTIALS),
    ]
    assert [one.status for one in responses] == [200, 409, 400, 400, 400, 200]
    for text in (PASSWORD, LOGIN):
        for response in responses:
            assert text not in str(response.body)
        assert text not in caplog.text
        for entry in await plane.store.entries("secrets"):
            assert text.encode() not in (entry.data or b"")


async def test_credentials_of_others_do_not_exist(plane: IdentityPlane, client: Client) -> None:
    created = await client.post(CREDENTIALS, body())
    path = f"{CREDENTIALS}/{created.body['registryCredential']['registryCredentialId']}"
    other = await plane.client("other", PULLER)
    for refused in (await other.get(path), await other.delete(path)):
        assert refused.status == 404
    unscoped = await plane.client(ACCOUNT, SCOPES)
    assert (await unscoped.get(CREDENTIALS)).status == 403
