"""A store that refuses writes, as with a full disk: a deletion does all or nothing, and says it."""

from uuid import uuid4

import pytest

from gateway.store.names import DETAILS, FUNCTIONS, KEYS
from tests.integration.gateway.api.full_store import full
from tests.support.control import (
    SCOPES,
    Client,
    ControlPlane,
    OpenVault,
    deployment_path,
    version_path,
)


async def test_a_version_that_cannot_be_deleted_is_kept_whole(
    client: Client, plane: ControlPlane, vault: OpenVault
) -> None:
    function_id, version_id = await client.create(secrets=[{"name": "a", "value": "b"}])
    async with full(plane, FUNCTIONS, DETAILS):
        refused = await client.delete(version_path(function_id, version_id))
    assert refused.status == 503
    assert refused.body["detail"] == "The store cannot be written: nothing was deleted"
    assert (await client.get(version_path(function_id, version_id))).body["function"]["secrets"]
    assert vault.kept
    assert (await client.delete(version_path(function_id, version_id))).status == 204


async def test_a_deleted_version_is_gone_even_if_the_rest_cannot_be_deleted(
    client: Client, plane: ControlPlane, vault: OpenVault
) -> None:
    function_id, version_id = await client.deployed()
    async with full(plane, DETAILS):
        assert (await client.delete(version_path(function_id, version_id))).status == 204
        assert (await client.get(version_path(function_id, version_id))).status == 404
        assert (await client.get(deployment_path(function_id, version_id))).status == 404
        assert (await client.delete(version_path(function_id, version_id))).status == 404
    assert not vault.kept


@pytest.mark.parametrize("how", ["", "?graceful=true"])
async def test_a_version_that_cannot_be_undeployed_stays_deployed(
    client: Client, plane: ControlPlane, how: str
) -> None:
    function_id, version_id = await client.deployed()
    path = deployment_path(function_id, version_id)
    async with full(plane, DETAILS):
        refused = await client.delete(path + how)
    assert refused.status == 503
    assert refused.body["detail"] == "The store cannot be written: the version was not undeployed"
    assert (await client.get(path)).body["deployment"]["functionStatus"] == "DEPLOYING"
    assert (await client.delete(path + how)).status == 200


async def test_an_undeploy_that_has_begun_is_done(client: Client, plane: ControlPlane) -> None:
    function_id, version_id = await client.deployed()
    async with full(plane, FUNCTIONS):
        told = await client.delete(deployment_path(function_id, version_id))
        assert (told.status, told.body["function"]["status"]) == (200, "INACTIVE")
    assert (
        await plane.api.stores.of(told.body["function"]["ncaId"]).deployment(
            function_id, version_id
        )
        is None
    )


async def test_a_key_that_cannot_be_revoked_goes_on(plane: ControlPlane) -> None:
    account = f"own-{uuid4().hex}"
    owner = await plane.client(account, SCOPES | {"account_setup"})
    (key,) = (await owner.get("/v1/keys")).body["keys"]
    async with full(plane, KEYS):
        refused = await owner.delete(f"/v1/keys/{key['id']}")
    assert refused.body["detail"] == "The store cannot be written: the key was not revoked"
    assert (await owner.get(f"/v1/keys/{key['id']}")).body["status"] == "active"
