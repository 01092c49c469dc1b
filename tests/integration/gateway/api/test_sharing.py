"""Functions that others may use: shared with an account, or public (`docs/wire.md` §14.3)."""

import asyncio
from uuid import uuid4

from gateway.domain.model import ResourceScope
from tests.support.control import IMAGE, SCOPES, Client, ControlPlane, deployment_path, version_path

FUNCTIONS = "/v2/nvcf/functions"
HIDDEN = {
    "inferenceUrl",
    "inferencePort",
    "maxBodyBytes",
    "cors",
    "containerImage",
    "containerArgs",
    "containerEnvironment",
    "models",
    "resources",
    "helmChart",
    "helmChartServiceName",
    "activeInstances",
    "secrets",
    "rateLimit",
    "health",
    "tags",
    "telemetries",
    "llmInvocationConfig",
}
FULL = {
    "tags": ["t"],
    "inferencePort": 9,
    "maxBodyBytes": 9,
    "cors": {"origins": ["*"]},
    "containerArgs": "x",
    "rateLimit": {"rateLimit": "1-S"},
    "health": {
        "protocol": "HTTP",
        "uri": "/mine",
        "port": 1,
        "timeout": "PT1S",
        "expectedStatusCode": 200,
    },
    "secrets": [{"name": "s", "value": "v"}],
}


def authorizations(function_id: str, version_id: str = "") -> str:
    path = f"/v2/nvcf/authorizations/functions/{function_id}"
    return f"{path}/versions/{version_id}" if version_id else path


async def name_of(client: Client) -> str:
    """Return the client's account; it owns a function from now on, so that it is known."""
    function_id, version_id = await client.create()
    told = await client.get(version_path(function_id, version_id))
    return str(told.body["function"]["ncaId"])


async def test_a_shared_function_is_seen_without_what_only_its_owner_should_know(
    client: Client, other: Client
) -> None:
    function_id, version_id = await client.create(**FULL)
    parties = {"authorizedParties": [{"ncaId": await name_of(other)}]}
    told = await client.post(authorizations(function_id), parties)
    assert told.status == 200
    assert told.body["function"]["authorizedParties"] == parties["authorizedParties"]
    shown = (await other.get(version_path(function_id, version_id))).body["function"]
    assert shown["ownedByDifferentAccount"] is True
    assert not HIDDEN & set(shown)
    assert shown["healthUri"] == "/v2/health/ready"
    listed = (await other.get(f"{FUNCTIONS}?visibility=authorized")).body["functions"]
    assert listed == [shown]
    assert "ownedByDifferentAccount" not in str(
        (await client.get(version_path(function_id, version_id))).body
    )
    assert (await other.delete(version_path(function_id, version_id))).status == 404
    assert (await other.get(deployment_path(function_id, version_id))).status == 404


async def test_a_new_version_is_shared_as_its_function_is_and_withdrawn_at_once(
    client: Client, other: Client
) -> None:
    function_id, _ = await client.create()
    parties = {"authorizedParties": [{"ncaId": await name_of(other)}]}
    await client.post(authorizations(function_id), parties)
    told = await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE)
    path = version_path(function_id, told.body["function"]["versionId"])
    assert (await other.get(path)).status == 200
    assert (await client.delete(authorizations(function_id))).status == 200
    assert (await other.get(path)).status == 404


async def test_sharing_a_version_does_not_share_the_others(client: Client, other: Client) -> None:
    function_id, version_id = await client.create()
    told = await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE)
    second = told.body["function"]["versionId"]
    account = await name_of(other)
    path = authorizations(function_id, version_id)
    assert (
        await client.patch(f"{path}/add", {"authorizedParty": {"ncaId": account}})
    ).status == 404
    await client.post(path, {"authorizedParties": [{"ncaId": account}]})
    assert (
        await client.patch(f"{path}/add", {"authorizedParty": {"ncaId": account}})
    ).status == 409
    assert (await other.get(version_path(function_id, version_id))).status == 200
    assert (await other.get(version_path(function_id, second))).status == 404
    told = await client.get(authorizations(function_id))
    assert [one.get("authorizedParties") for one in told.body["functions"]] == [
        [{"ncaId": account}],
        [],
    ]
    assert (
        await client.patch(f"{path}/remove", {"authorizedParty": {"ncaId": account}})
    ).status == 200
    assert (await other.get(version_path(function_id, version_id))).status == 404


async def test_parties_are_checked(client: Client, other: Client) -> None:
    function_id, _ = await client.create()
    own, theirs = await name_of(client), await name_of(other)
    path = authorizations(function_id)
    for parties in (
        [{"ncaId": own}],
        [{"ncaId": "nobody-of-this-name"}],
        [{"ncaId": theirs}, {"ncaId": "*"}],
        [{"ncaId": theirs, "clientId": "one"}],
        [{"ncaId": theirs}, {"ncaId": theirs}],
    ):
        assert (await client.post(path, {"authorizedParties": parties})).status == 400
    told = await client.patch(f"{path}/add", {"authorizedParty": {"ncaId": "*"}})
    assert told.status == 400
    told = await client.patch(f"{path}/remove", {"authorizedParty": {"ncaId": theirs}})
    assert told.status == 404


async def test_a_public_function_is_everybodys_to_see_and_nobodys_to_change(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.create()
    path = version_path(function_id, version_id)
    everybody = {"authorizedParties": [{"ncaId": "*"}]}
    assert (await client.post(authorizations(function_id), everybody)).status == 200
    anybody = await plane.client("anybody", SCOPES, ResourceScope())
    shown = await anybody.get(path)
    assert shown.body["function"]["ownedByDifferentAccount"] is True
    listed = (await anybody.get(f"{FUNCTIONS}?visibility=public")).body["functions"]
    assert version_id in [one["versionId"] for one in listed]
    for refused in (
        await client.delete(path),
        await client.put(path, {"tags": ["x"]}),
        await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE),
        await anybody.delete(path),
        await client.get(f"/v2/nvcf/queues/functions/{function_id}"),
    ):
        assert refused.status == 400
    assert (await client.delete(authorizations(function_id))).status == 200
    assert (await anybody.get(path)).status == 404
    assert (await client.delete(path)).status == 204


async def test_who_does_not_own_a_function_does_not_learn_which_accounts_there_are(
    client: Client, other: Client
) -> None:
    function_id, version_id = await client.create()
    own = await name_of(other)
    for at in (
        authorizations(function_id),
        authorizations(function_id, version_id),
        authorizations(str(uuid4())),
    ):
        for party in (
            {"ncaId": "nobody-of-this-name"},
            {"ncaId": own},
            {"ncaId": "*"},
            {"ncaId": "x", "clientId": "y"},
        ):
            told = await other.post(at, {"authorizedParties": [party]})
            added = await other.patch(f"{at}/add", {"authorizedParty": party})
            assert (told.status, added.status) == (404, 404)


async def test_everybody_who_authorizes_at_once_succeeds(client: Client, other: Client) -> None:
    function_id, version_id = await client.create()
    parties = {"authorizedParties": [{"ncaId": await name_of(other)}]}
    for at in (authorizations(function_id), authorizations(function_id, version_id)):
        answers = await asyncio.gather(
            *[client.post(at, parties if n % 2 else {"authorizedParties": []}) for n in range(12)]
        )
        assert [answer.status for answer in answers] == [200] * 12
