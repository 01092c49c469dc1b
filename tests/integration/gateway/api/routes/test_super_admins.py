"""Super administrators: what an account's own callers do, for any account (`docs/wire.md` §9.4)."""

import re
from uuid import uuid4

import pytest

from gateway.api.admin_routes import with_admin_routes
from gateway.api.app import ROUTES
from gateway.api.audit import EVENT
from gateway.auth.scopes import ACCOUNT_SCOPES
from tests.support.control import IMAGE, SCOPES, SPEC, Client, deployment_path, version_path
from tests.support.identity import DEFAULT_ACCOUNT, IdentityPlane
from tests.support.jwks import TokenIssuer

EVERY_SCOPE = sorted(f"admin:{scope}" for scope in ACCOUNT_SCOPES)
TWINS = [route for route in with_admin_routes(ROUTES) if route.is_admin]
SOME_ID = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


def of(account: str, path: str) -> str:
    """Return the path by which a super administrator does in ``account`` what ``path`` does."""
    return path.replace("/v2/nvcf/", f"/v2/nvcf/accounts/{account}/", 1)


def some(account: str, path: str) -> str:
    """Return the path of a twin, about nothing that is there."""
    return re.sub(r"\{(\w+)\}", lambda name: account if name[1] == "ncaId" else SOME_ID, path)


class Staff:
    """Makes bearers of JWTs: of a client that acts for an account of its own."""

    def __init__(
        self, plane: IdentityPlane, issuer: TokenIssuer, client_id: str, account: str
    ) -> None:
        self.account = account
        self._plane = plane
        self._issuer = issuer
        self.client_id = client_id

    def with_scopes(self, *scopes: str) -> Client:
        return self._plane.holder(self._issuer.token(self.client_id, *scopes))


@pytest.fixture
async def staff(plane: IdentityPlane, issuer: TokenIssuer) -> Staff:
    client_id, account = f"client-{uuid4().hex}", f"staff-{uuid4().hex}"
    await plane.admin(account)
    setup = await plane.admin(DEFAULT_ACCOUNT)
    path = f"/v2/nvcf/accounts/{account}/clients/associate"
    assert (await setup.patch(path, {"clientId": client_id})).status == 200
    return Staff(plane, issuer, client_id, account)


@pytest.fixture
async def owner(plane: IdentityPlane, account: str) -> Client:
    """A key of the account that others look into."""
    return await plane.client(account)


async def test_a_functions_whole_life_in_another_account(
    staff: Staff, owner: Client, account: str
) -> None:
    boss = staff.with_scopes(*EVERY_SCOPE)
    made = await boss.post(of(account, "/v2/nvcf/functions"), IMAGE)
    assert made.status == 200
    function = made.body["function"]
    assert function["ncaId"] == account
    names = function["id"], function["versionId"]
    version, deployment = version_path(*names), deployment_path(*names)
    assert (await owner.get(version)).status == 200
    told = await boss.post(of(account, deployment), {"deploymentSpecifications": [SPEC]})
    assert told.status == 200
    assert (await owner.get(deployment)).body == told.body
    assert (await boss.get(of(account, deployment))).body == told.body
    listed = await boss.get(of(account, "/v2/nvcf/functions?visibility=private"))
    assert [one["versionId"] for one in listed.body["functions"]] == [names[1]]
    queues = await boss.get(of(account, f"/v2/nvcf/queues/functions/{names[0]}"))
    assert queues.body["queues"][0]["queueDepth"] == 0
    assert (await boss.delete(of(account, deployment))).status == 200
    assert (await boss.delete(of(account, version))).status == 204
    assert (await owner.get(version)).status == 404


async def test_the_deployments_of_an_account_are_those_that_are_not_inactive(
    staff: Staff, owner: Client, account: str
) -> None:
    boss = staff.with_scopes("admin:deploy_function")
    path = of(account, "/v2/nvcf/deployments")
    await owner.create()
    first, second = await owner.deployed(), await owner.deployed()
    shown = [(await owner.get(deployment_path(*one))).body["deployment"] for one in (first, second)]
    assert (await boss.get(path)).body == {"deployments": shown}
    await owner.delete(deployment_path(*first))
    assert (await boss.get(path)).body == {"deployments": shown[1:]}


async def test_what_is_another_accounts_is_not_in_the_account_of_the_path(
    plane: IdentityPlane, staff: Staff, owner: Client, account: str
) -> None:
    boss = staff.with_scopes(*EVERY_SCOPE)
    other = f"other-{uuid4().hex}"
    theirs = await plane.client(other)
    names = await theirs.deployed()
    await owner.create()
    for told in (
        await boss.get(of(account, version_path(*names))),
        await boss.put(of(account, version_path(*names)), {"tags": ["x"]}),
        await boss.delete(of(account, version_path(*names))),
        await boss.get(of(account, deployment_path(*names))),
        await boss.delete(of(account, deployment_path(*names))),
        await boss.post(of(account, f"/v2/nvcf/functions/{names[0]}/versions"), IMAGE),
    ):
        assert told.status == 404
    assert (await boss.get(of(account, "/v2/nvcf/deployments"))).body == {"deployments": []}
    assert (await theirs.get(deployment_path(*names))).status == 200


async def test_every_twin_wants_a_jwt_with_its_scope(
    plane: IdentityPlane, staff: Staff, account: str
) -> None:
    key = await plane.client(account, SCOPES | set(EVERY_SCOPE))
    token = await plane.admin(account)
    boss = staff.with_scopes(*EVERY_SCOPE)
    for twin in TWINS:
        method, path = twin.method, some(account, twin.path)
        wrong = set(EVERY_SCOPE) - set(twin.scopes)
        limited = staff.with_scopes(*ACCOUNT_SCOPES, *wrong)
        for refused in (key, token, limited):
            assert (await refused.call(method, path)).status == 403, twin.operation_id
        assert (await plane.stranger().call(method, path)).status == 401, twin.operation_id
        assert (await boss.call(method, path)).status != 403, twin.operation_id


async def test_no_twin_knows_an_account_that_is_not_there(staff: Staff, account: str) -> None:
    boss = staff.with_scopes(*EVERY_SCOPE)
    for twin in TWINS:
        if twin.body is None:
            told = await boss.call(twin.method, some(account, twin.path))
            assert (told.status, told.body["detail"]) == (404, "There is no such account")
    told = await boss.post(of(account, "/v2/nvcf/functions"), IMAGE)
    assert (told.status, told.body["detail"]) == (404, "There is no such account")


async def test_scopes_for_all_accounts_are_not_scopes_in_ones_own(staff: Staff) -> None:
    boss = staff.with_scopes(*EVERY_SCOPE)
    assert (await boss.get("/v2/nvcf/functions")).status == 403
    assert (await boss.post("/v2/nvcf/functions", IMAGE)).status == 403
    assert (await boss.get("/v1/keys")).status == 403
    assert (await boss.get("/v2/nvcf/supportedGpus")).status == 200


async def test_only_the_scope_for_details_shows_details(
    staff: Staff, owner: Client, account: str
) -> None:
    path = of(account, version_path(*await owner.create()))
    brief = staff.with_scopes("admin:list_functions", "list_functions_details")
    whole = staff.with_scopes("admin:list_functions_details")
    assert "activeInstances" not in (await brief.get(path)).body["function"]
    assert "activeInstances" in (await whole.get(path)).body["function"]


async def test_who_changes_what_in_another_account_is_written_down(
    staff: Staff, owner: Client, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    function_id, version_id = await owner.create()
    path = of(account, version_path(function_id, version_id))
    boss = staff.with_scopes(*EVERY_SCOPE)
    caplog.clear()
    await boss.get(path)
    told = await boss.delete(path)
    (noted,) = [vars(r)["fields"] for r in caplog.records if r.getMessage() == EVENT]
    assert noted == {
        "operation": "admin.functions.delete",
        "outcome": "done",
        "status": 204,
        "reason": "",
        "account": account,
        "by_account": staff.account,
        "by": staff.client_id,
        "by_kind": "jwt",
        "by_key_id": "",
        "request_id": told.headers["x-request-id"],
        "function_id": function_id,
        "function_version_id": version_id,
        "nca_id": account,
    }
