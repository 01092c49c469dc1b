"""Functions over the API: registered, listed, changed, deleted (`docs/wire.md` §10.1)."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from gateway.api.quota import RESERVED_S
from gateway.domain.model import (
    Account,
    DetailsKey,
    FunctionKey,
    FunctionVersion,
    PagePolicy,
    RecordKey,
    ResourceScope,
    VersionDetails,
    VersionKey,
)
from gateway.domain.rate_limit import RateLimitPolicy
from gateway.store.account_store import AccountStore
from tests.support.control import (
    IMAGE,
    SCOPES,
    SPEC,
    Client,
    ControlPlane,
    OpenVault,
    control_plane,
    deployment_path,
    version_path,
)
from tests.support.nats_server import NatsServer
from wire.ids import FunctionId, VersionId

FUNCTIONS = "/v2/nvcf/functions"
HEALTH = {
    "protocol": "HTTP",
    "uri": "/v2/health/ready",
    "port": 8000,
    "timeout": "PT10S",
    "expectedStatusCode": 200,
}
"""The default of a function that is not gRPC."""


async def test_a_new_function_is_inactive_and_has_the_defaults(client: Client) -> None:
    told = await client.post(FUNCTIONS, IMAGE)
    assert told.status == 200
    function = told.body["function"]
    assert function["status"] == "INACTIVE"
    assert function["description"] == "echo"
    assert function["apiBodyFormat"] == "CUSTOM"
    assert function["functionType"] == "DEFAULT"
    assert function["health"] == HEALTH
    assert function["healthUri"] == "/v2/health/ready"


async def test_what_was_registered_comes_back_member_by_member(client: Client) -> None:
    body = {
        **IMAGE,
        "inferencePort": 9000,
        "allowRerun": False,
        "passInterim": True,
        "maxBodyBytes": 1_000_000,
        "containerArgs": "--fast",
        "containerEnvironment": [{"key": "A", "value": "1"}],
        "apiBodyFormat": "PREDICT_V2",
        "functionType": "DEFAULT",
        "tags": ["a", "b"],
        "description": "an echo",
        "rateLimit": {
            "rateLimit": "10-S, 5000-H",
            "exemptedNcaIds": ["x"],
            "perNcaIdRate": {"y": "1-M"},
            "perUserRate": "2-S",
            "syncCheck": True,
        },
        "health": {
            "protocol": "HTTP",
            "uri": "/ready",
            "port": 1,
            "timeout": "PT1M",
            "expectedStatusCode": 204,
        },
    }
    function_id = (await client.post(FUNCTIONS, body)).body["function"]["id"]
    told = await client.get(f"{FUNCTIONS}/{function_id}/versions")
    function = told.body["functions"][0]
    assert {name: function[name] for name in body} == body
    assert function["healthUri"] == "/ready"


@pytest.mark.parametrize("url", ["/grpc", "grpc"])
async def test_a_grpc_function_has_a_grpc_health_check_unless_it_says_otherwise(
    client: Client, plane: ControlPlane, url: str
) -> None:
    body = {**IMAGE, "inferenceUrl": url, "inferencePort": 9000, "healthUri": "/kept"}
    function = (await client.post(FUNCTIONS, body)).body["function"]
    assert function["inferenceUrl"] == url
    assert function["health"] == {**HEALTH, "protocol": "gRPC", "uri": "/kept", "port": 9000}
    found = await plane.store.get(VersionKey(function["id"], function["versionId"]))
    assert found is not None
    assert isinstance(found[0], FunctionVersion)
    assert found[0].inference_path == "/grpc"
    told = await client.post(FUNCTIONS, {**body, "health": HEALTH})
    assert told.body["function"]["health"] == HEALTH


@pytest.mark.parametrize("protocol", ["gRPC", "GRPC", "grpc"])
async def test_a_server_of_http_may_have_a_grpc_health_check(client: Client, protocol: str) -> None:
    told = await client.post(FUNCTIONS, {**IMAGE, "health": {**HEALTH, "protocol": protocol}})
    assert told.status == 200
    assert told.body["function"]["health"]["protocol"] == "gRPC"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"functionType": "streaming"}, "STREAMING functions cannot be served"),
        ({"health": {**HEALTH, "protocol": "tcp"}}, "health.protocol"),
    ],
)
async def test_what_cannot_be_served_is_refused(
    client: Client, changes: dict[str, object], why: str
) -> None:
    refused = await client.post(FUNCTIONS, {**IMAGE, **changes})
    assert refused.status == 400
    assert why in refused.body["detail"]


async def test_the_models_of_an_llm_function_are_updated_by_their_names(client: Client) -> None:
    models = [{"name": name, "llmConfig": {"uris": ["http://x"]}} for name in ("a", "b")]
    body = {"name": "llm", "inferenceUrl": "/", "functionType": "LLM", "models": models}
    function = (await client.post(FUNCTIONS, {**body, "containerImage": "i"})).body["function"]
    path = version_path(function["id"], function["versionId"])
    update = {"modelName": "b", "llmConfig": {"tokenizer": "llama"}}
    told = await client.put(path, {"modelUpdates": [update]})
    configs = {one["name"]: one["llmConfig"] for one in told.body["function"]["models"]}
    assert configs["b"] == {"uris": ["http://x"], "tokenizer": "llama"}
    assert configs["a"] == {"uris": ["http://x"]}
    assert (await client.put(path, {"modelUpdates": [update, update]})).status == 400


async def test_the_origins_of_pages_are_registered_changed_and_removed(
    client: Client, plane: ControlPlane
) -> None:
    cors = {"origins": ["https://App.example:443", "http://localhost:3000"], "credentials": True}
    function_id, version_id = await client.create(cors=cors)
    path = version_path(function_id, version_id)
    shown = (await client.get(path)).body["function"]["cors"]
    assert shown == {**cors, "origins": ["https://app.example", "http://localhost:3000"]}
    for change, policy in (
        ({"cors": {"origins": ["*"]}}, PagePolicy(frozenset({"*"}))),
        ({"tags": ["x"]}, PagePolicy(frozenset({"*"}))),
        ({"cors": {"origins": []}}, None),
    ):
        changed = await client.put(path, change)
        assert changed.status == 200
        assert ("cors" in changed.body["function"]) == (policy is not None)
        kept = await plane.store.get(VersionKey(function_id, version_id))
        assert kept is not None
        assert isinstance(kept[0], FunctionVersion)
        assert kept[0].page_policy == policy
    plain = (await client.post(FUNCTIONS, {**IMAGE, "cors": {"origins": []}})).body["function"]
    assert "cors" not in plain


async def test_values_of_secrets_go_to_the_vault_and_are_never_told(
    client: Client, vault: OpenVault
) -> None:
    secrets = [{"name": "token", "value": "hunter2"}, {"name": "config", "value": {"a": [1]}}]
    told = await client.post(FUNCTIONS, {**IMAGE, "secrets": secrets})
    function = told.body["function"]
    assert function["secrets"] == ["token", "config"]
    (kept,) = vault.kept.values()
    assert kept == {"token": "hunter2", "config": {"a": [1]}}
    path = version_path(function["id"], function["versionId"])
    assert (await client.get(path)).body["function"]["secrets"] == ["token", "config"]
    shown = await client.get(f"{path}?includeSecrets=false")
    assert "secrets" not in shown.body["function"]
    assert "hunter2" not in str(told.body)
    assert (await client.delete(path)).status == 204
    assert not vault.kept


async def test_versions_share_the_id_and_are_listed_oldest_first(client: Client) -> None:
    function_id, first = await client.create()
    told = await client.post(f"{FUNCTIONS}/{function_id}/versions", {**IMAGE, "name": "other-name"})
    second = told.body["function"]
    assert (second["id"], second["name"]) == (function_id, "other-name")
    listed = await client.get(f"{FUNCTIONS}/{function_id}/versions")
    assert [one["versionId"] for one in listed.body["functions"]] == [first, second["versionId"]]


async def test_a_list_of_nothing_is_empty_and_not_missing(client: Client) -> None:
    told = await client.get(f"{FUNCTIONS}?visibility=private")
    assert (told.status, told.body) == (200, {"functions": []})
    assert (await client.get(f"{FUNCTIONS}/{uuid4()}/versions")).status == 404


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", 200),
        ("?visibility=private&visibility=PUBLIC", 200),
        ("?visibility=private,authorized", 200),
        ("?visibility=mine", 400),
        ("?limit=0", 400),
        ("?limit=1001", 400),
        ("?limit=1e2", 400),
        ("?cursor=bm9uZQ", 400),
        ("?cursor=%00", 400),
    ],
)
async def test_queries_are_checked(client: Client, query: str, expected: int) -> None:
    assert (await client.get(FUNCTIONS + query)).status == expected


async def test_pages_show_every_version_once_and_in_the_order_of_the_whole_list(
    client: Client, other: Client
) -> None:
    for _ in range(3):
        function_id, _ = await client.create()
        await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE)
    shared, _ = await other.create()
    party = {"authorizedParties": [{"ncaId": await account_of(client)}]}
    assert (await other.post(f"/v2/nvcf/authorizations/functions/{shared}", party)).status == 200
    public, _ = await client.create()
    everybody = {"authorizedParties": [{"ncaId": "*"}]}
    path = f"/v2/nvcf/authorizations/functions/{public}"
    assert (await client.post(path, everybody)).status == 200
    whole = [one["versionId"] for one in (await client.get(FUNCTIONS)).body["functions"]]
    assert len(whole) == len(set(whole)) == 8
    paged: list[str] = []
    cursor = ""
    while True:
        told = (await client.get(f"{FUNCTIONS}?limit=3{cursor}")).body
        assert len(told["functions"]) <= 3
        paged += [one["versionId"] for one in told["functions"]]
        if "cursor" not in told:
            break
        cursor = f"&cursor={told['cursor']}"
    assert paged == whole
    await client.delete(path)


async def account_of(client: Client) -> str:
    function_id, version_id = await client.create()
    told = await client.get(version_path(function_id, version_id))
    await client.delete(version_path(function_id, version_id))
    return str(told.body["function"]["ncaId"])


async def test_a_deleted_version_is_gone_with_everything_of_it(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.deployed()
    path = version_path(function_id, version_id)
    told = await client.delete(path)
    assert (told.status, told.body) == (204, b"")
    assert (await client.delete(path)).status == 404
    assert (await client.get(path)).status == 404
    assert (await client.get(deployment_path(function_id, version_id))).status == 404
    for name in (FunctionKey(function_id), DetailsKey(function_id, version_id)):
        assert await plane.store.get(name) is None


async def test_of_several_who_delete_a_version_at_once_one_does(client: Client) -> None:
    for _ in range(5):
        path = version_path(*await client.deployed())
        answers = await asyncio.gather(*[client.delete(path) for _ in range(3)])
        assert sorted(answer.status for answer in answers) == [204, 404, 404]


async def test_a_version_that_the_reconciler_writes_meanwhile_is_deleted_all_the_same(
    client: Client, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    function_id, version_id = await client.deployed()
    delete, written = AccountStore.delete, list[int]()

    async def outrun(store: AccountStore, name: RecordKey, revision: int) -> None:
        if isinstance(name, VersionKey) and len(written) < 3:
            found = await store.version(name.function_id, name.version_id)
            assert found is not None
            written.append(await plane.store.put(replace(found[0], capacity=len(written) + 1)))
        await delete(store, name, revision)

    monkeypatch.setattr(AccountStore, "delete", outrun)
    assert (await client.delete(version_path(function_id, version_id))).status == 204
    assert len(written) == 3
    assert (await client.get(deployment_path(function_id, version_id))).status == 404


async def test_everybody_who_changes_metadata_at_once_succeeds(client: Client) -> None:
    function_id, version_id = await client.create()
    path = version_path(function_id, version_id)
    limit = path.replace("/nvcf/", "/nvcf/ratelimit/")
    answers = await asyncio.gather(
        *[client.put(path, {"tags": [f"t{n}"]}) for n in range(12)],
        client.put(limit, {"rateLimit": {"rateLimit": "5-M"}}),
    )
    assert [answer.status for answer in answers] == [200] * 12 + [204]
    function = (await client.get(path)).body["function"]
    assert function["tags"][0] in {f"t{n}" for n in range(12)}
    assert function["rateLimit"] == {"rateLimit": "5-M"}


async def test_the_rate_limit_of_a_version_is_that_of_the_last_change(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.create(rateLimit={"rateLimit": "1-M"})
    path = version_path(function_id, version_id)
    limit = path.replace("/nvcf/", "/nvcf/ratelimit/")

    async def applied() -> RateLimitPolicy | None:
        found = await plane.store.get(VersionKey(FunctionId(function_id), VersionId(version_id)))
        assert found is not None
        assert isinstance(found[0], FunctionVersion)
        return found[0].rate_limit

    assert await applied() == RateLimitPolicy(rate="1-M")
    told = await client.put(path, {"rateLimit": {"rateLimit": "2-M, 9-H", "syncCheck": True}})
    assert told.body["function"]["rateLimit"]["rateLimit"] == "2-M, 9-H"
    assert await applied() == RateLimitPolicy(rate="2-M, 9-H", is_exact=True)
    await asyncio.gather(
        *[client.put(path, {"rateLimit": {"rateLimit": f"{n}-M"}}) for n in range(1, 9)],
        *[client.put(path, {"tags": [f"t{n}"]}) for n in range(4)],
    )
    rate = (await client.get(path)).body["function"]["rateLimit"]["rateLimit"]
    assert await applied() == RateLimitPolicy(rate=rate)
    await client.put(limit, {"rateLimit": {"perUserRate": "5-D"}})
    assert await applied() == RateLimitPolicy(per_user="5-D")
    assert (await client.delete(limit)).status == 204
    assert await applied() is None


async def test_a_rate_limit_is_taken_away_by_null_and_by_nothing_that_is_absent(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.create(rateLimit={"perUserRate": "1-M"})
    path = version_path(function_id, version_id)

    async def applied() -> RateLimitPolicy | None:
        found = await plane.store.get(VersionKey(FunctionId(function_id), VersionId(version_id)))
        assert found is not None
        assert isinstance(found[0], FunctionVersion)
        return found[0].rate_limit

    assert (await client.put(path, {"tags": ["a"]})).status == 200
    assert await applied() == RateLimitPolicy(per_user="1-M")
    for _ in range(2):
        told = await client.put(path, {"rateLimit": None})
        assert told.status == 200
        assert "rateLimit" not in told.body["function"]
        assert told.body["function"]["tags"] == ["a"]
        assert await applied() is None
    await client.put(path, {"rateLimit": {"rateLimit": "2-M"}, "tags": None})
    told = await client.put(path, {"rateLimit": None, "tags": ["b"]})
    assert told.body["function"]["tags"] == ["b"]
    assert "rateLimit" not in (await client.get(path)).body["function"]
    assert await applied() is None
    assert (await client.put(path, {"tags": None, "cors": None})).status == 400


async def test_other_accounts_functions_do_not_exist_whatever_is_tried(
    client: Client, other: Client
) -> None:
    function_id, version_id = await client.deployed()
    path, deployment = (
        version_path(function_id, version_id),
        deployment_path(function_id, version_id),
    )
    told = await client.get(deployment)
    deployment_id = told.body["deployment"]["deploymentId"]
    spec_id = told.body["deployment"]["deploymentSpecifications"][0]["gpuSpecificationId"]
    by_id = f"/v2/nvcf/deployments/{deployment_id}"
    shared = f"/v2/nvcf/authorizations/functions/{function_id}"
    for answer in (
        await other.get(path),
        await other.get(f"{FUNCTIONS}/{function_id}/versions"),
        await other.delete(path),
        await other.put(path, {"tags": ["x"]}),
        await other.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE),
        await other.get(deployment),
        await other.post(deployment, {"deploymentSpecifications": [SPEC]}),
        await other.put(deployment, {"deploymentSpecifications": [SPEC]}),
        await other.delete(deployment),
        await other.get(by_id),
        await other.patch(f"{by_id}/gpu-specifications/{spec_id}", {"maxInstances": 9}),
        await other.get(f"/v2/nvcf/queues/functions/{function_id}"),
        await other.get(f"/v2/nvcf/queues/functions/{function_id}/versions/{version_id}"),
        await other.get(shared),
        await other.post(shared, {"authorizedParties": []}),
        await other.delete(f"{shared}/versions/{version_id}"),
    ):
        assert answer.status == 404, answer
    assert (await other.get(FUNCTIONS)).body == {"functions": []}
    assert (await client.get(deployment)).body == told.body


async def test_a_key_for_one_version_is_good_for_that_one_alone(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.create()
    told = await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE)
    second = told.body["function"]
    reach = ResourceScope(versions=frozenset({f"{function_id}/{version_id}"}))
    narrow = await plane.client(second["ncaId"], SCOPES, reach)
    assert (await narrow.get(version_path(function_id, version_id))).status == 200
    assert (await narrow.get(version_path(function_id, second["versionId"]))).status == 403
    listed = await narrow.get(f"{FUNCTIONS}/{function_id}/versions")
    assert [one["versionId"] for one in listed.body["functions"]] == [version_id]
    assert (await narrow.post(FUNCTIONS, IMAGE)).status == 403
    assert (await narrow.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE)).status == 403
    assert (await narrow.get(f"/v2/nvcf/queues/functions/{function_id}")).status == 403


async def test_metadata_can_change_and_nothing_else(client: Client) -> None:
    function_id, version_id = await client.create()
    path = version_path(function_id, version_id)
    told = await client.put(path, {"tags": ["new"], "description": "better", "name": "ignored"})
    assert told.status == 200
    alias = path.replace("/nvcf/", "/nvcf/metadata/")
    assert (await client.put(alias, {"rateLimit": {"rateLimit": "5-M"}})).status == 200
    function = (await client.get(path)).body["function"]
    assert (function["tags"], function["name"]) == (["new"], "echo")
    assert function["description"] == "better"
    assert function["rateLimit"] == {"rateLimit": "5-M"}
    assert (await client.put(path, {"name": "x"})).status == 400


async def test_an_account_has_as_many_functions_as_it_may(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.create()
    told = await client.get(version_path(function_id, version_id))
    account = told.body["function"]["ncaId"]
    await plane.store.put(Account(account, "small", max_functions=1))
    await plane.catalog.until(lambda: plane.catalog.model.account(account) is not None)
    assert (await client.post(FUNCTIONS, IMAGE)).status == 400
    assert (await client.post(f"{FUNCTIONS}/{function_id}/versions", IMAGE)).status == 200


async def limited(client: Client, plane: ControlPlane, limit: int) -> str:
    """Bound how many functions the client's account may have; return the account."""
    account = await account_of(client)
    await plane.store.put(Account(account, "small", max_functions=limit))
    await plane.catalog.until(lambda: plane.catalog.model.account(account) is not None)
    return account


async def test_of_many_that_register_at_once_as_many_succeed_as_are_allowed(
    client: Client, plane: ControlPlane, shared_nats_server: NatsServer
) -> None:
    account = await limited(client, plane, 5)
    async with control_plane(shared_nats_server.url) as second:
        await second.catalog.until(lambda: second.catalog.model.account(account) is not None)
        clients = [client, Client(second.session, client.key)] * 8
        answers = await asyncio.gather(*[one.post(FUNCTIONS, IMAGE) for one in clients])
    statuses = [answer.status for answer in answers]
    assert (statuses.count(200), statuses.count(400)) == (5, 11)
    assert len((await client.get(FUNCTIONS)).body["functions"]) == 5


async def test_a_place_is_free_again_when_nothing_was_registered_in_it(
    client: Client, plane: ControlPlane, vault: OpenVault
) -> None:
    account = await limited(client, plane, 1)
    vault.is_broken = True
    secret = {"secrets": [{"name": "token", "value": "x"}]}
    assert (await client.post(FUNCTIONS, {**IMAGE, **secret})).status == 503
    await client.delete(version_path(*await client.create()))
    # As a process leaves it that died while it registered.
    store = plane.api.stores.of(account)
    now = int(plane.api.clock())
    _, revision = await store.reservations()
    await store.put_reservations({str(uuid4()): now + RESERVED_S}, revision)
    assert (await client.post(FUNCTIONS, IMAGE)).status == 400
    _, revision = await store.reservations()
    await store.put_reservations({str(uuid4()): now}, revision)
    assert (await client.post(FUNCTIONS, IMAGE)).status == 200


async def test_llm_and_other_versions_do_not_mix(client: Client) -> None:
    function_id, _ = await client.create()
    llm = {
        **IMAGE,
        "functionType": "llm",
        "models": [{"name": "m", "llmConfig": {"uris": ["/v1"]}}],
    }
    assert (await client.post(f"{FUNCTIONS}/{function_id}/versions", llm)).status == 400
    assert (await client.post(FUNCTIONS, llm)).status == 200


async def test_an_empty_description_is_none(client: Client) -> None:
    told = await client.post(FUNCTIONS, {**IMAGE, "description": ""})
    assert told.body["function"]["description"] == "echo"


async def test_the_chart_of_an_llm_function_may_have_models(client: Client) -> None:
    chart = {"containerImage": None, "helmChart": "oci://x", "helmChartServiceName": "service"}
    llm = {"functionType": "LLM", "models": [{"name": "m", "llmConfig": {"uris": ["/v1"]}}]}
    assert (await client.post(FUNCTIONS, {**IMAGE, **chart, **llm})).status == 200


async def test_the_longest_that_can_run_is_taken(client: Client) -> None:
    body = {
        **IMAGE,
        "containerImage": "x" * 2048,
        "containerArgs": "x" * 65_536,
        "containerEnvironment": [{"key": "A", "value": "\u00e9" * 65_000}],
        "inferenceUrl": "/h%C3%A9",
    }
    told = await client.post(FUNCTIONS, body)
    assert {name: told.body["function"][name] for name in body} == body


async def test_what_was_registered_under_older_rules_is_still_told(
    client: Client, plane: ControlPlane
) -> None:
    function_id, version_id = await client.create()
    path = version_path(function_id, version_id)
    details = plane.catalog.details(function_id, version_id)
    assert details is not None
    twice = [{"key": "A", "value": "1"}, {"key": "A", "value": "x" * 70_000}]
    old = {
        "health": {
            "protocol": "HTTP",
            "uri": "/h\u00e9",
            "port": 1,
            "timeout": "PT",
            "expectedStatusCode": 200,
        },
        "containerEnvironment": twice,
        "inferenceUrl": "/h\u00e9",
    }
    await plane.store.put(replace(details, spec={**details.spec, **old}))

    def shown() -> bool:
        now = plane.catalog.details(function_id, version_id)
        return isinstance(now, VersionDetails) and now.spec.get("containerEnvironment") == twice

    await plane.catalog.until(shown)
    for function in (
        (await client.get(path)).body["function"],
        (await client.get(f"{FUNCTIONS}?visibility=private")).body["functions"][0],
        (await client.put(path, {"tags": ["x"]})).body["function"],
    ):
        assert {name: function[name] for name in old} == old
