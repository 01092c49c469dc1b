"""Accounts and the clients that act for them."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.support.control import IMAGE, SCOPES, Client
from tests.support.identity import DEFAULT_ACCOUNT, IdentityPlane
from tests.support.jwks import TokenIssuer


def at(nca_id: str, rest: str = "") -> str:
    return f"/v2/nvcf/accounts/{nca_id}{rest}"


@pytest.fixture
async def admin(plane: IdentityPlane) -> Client:
    return await plane.admin(DEFAULT_ACCOUNT)


@pytest.fixture
async def owner(plane: IdentityPlane, admin: Client, account: str) -> Client:
    """A key of an account that is there, with the most a key can have."""
    assert (await admin.post(at(account), {"name": "Acme Inc"})).status == 200
    return await plane.client(account, SCOPES | {"account_setup"})


async def test_an_account_is_made_named_limited_and_deleted(admin: Client, account: str) -> None:
    client_id = f"client-{uuid4().hex}"
    made = await admin.post(at(account), {"name": "Acme", "adminClientId": client_id})
    assert made.status == 200
    view = made.body["account"]
    assert (view["ncaId"], view["name"], view["adminClientIds"]) == (account, "Acme", [client_id])
    assert view["maxFunctionsAllowed"] == 50
    changed = await admin.patch(at(account), {"name": "Acme Inc", "maxFunctionsAllowed": 1})
    assert changed.body["account"]["maxFunctionsAllowed"] == 1
    assert (await admin.get(at(account))).body == changed.body
    listed = (await admin.get("/v2/nvcf/accounts")).body["cloudAccounts"]
    assert changed.body["account"] in listed
    assert [one["ncaId"] for one in listed] == sorted(one["ncaId"] for one in listed)
    assert (await admin.delete(at(account))).status == 204
    assert (await admin.get(at(account))).status == 404
    assert (await admin.get(f"/v2/nvcf/clients/{client_id}")).status == 404


async def test_an_accounts_limits_are_kept(admin: Client, account: str) -> None:
    limits = {
        "maxFunctionsAllowed": 7,
        "maxTasksAllowed": 6,
        "maxTelemetriesAllowed": 5,
        "maxRegistryCredentialsAllowed": 4,
    }
    made = await admin.post(at(account), {"name": "Acme", "adminClientId": account, **limits})
    assert made.body["account"].items() >= limits.items()
    assert made.body["account"]["clientIds"] == [account]
    changed = await admin.patch(at(account), {"maxTasksAllowed": 0})
    assert changed.body["account"] == {**made.body["account"], "maxTasksAllowed": 0}
    assert (await admin.get(at(account))).body == changed.body


async def test_a_function_is_shared_with_one_client_of_an_account(
    plane: IdentityPlane, admin: Client, issuer: TokenIssuer, account: str
) -> None:
    linked, colleague = f"client-{uuid4().hex}", f"client-{uuid4().hex}"
    await admin.post(at(account), {"name": "Acme"})
    for client_id in (linked, colleague):
        body = {"clientId": client_id}
        told = await admin.patch(at(account, "/clients/associate"), body)
        assert client_id in told.body["account"]["clientIds"]
    function_id, version_id = await (await plane.client(f"seller-{account}")).create()
    seller = await plane.client(f"seller-{account}")
    path = f"/v2/nvcf/authorizations/functions/{function_id}"
    party = {"ncaId": account, "clientId": linked}
    for wrong in ({**party, "clientId": "nobody"}, {"ncaId": "*", "clientId": linked}):
        assert (await seller.post(path, {"authorizedParties": [wrong]})).status == 400
    told = await seller.post(path, {"authorizedParties": [party]})
    assert told.body["function"]["authorizedParties"] == [party]
    version = f"/v2/nvcf/functions/{function_id}/versions/{version_id}"
    until = int(time.time()) + 600
    for client_id, status in ((linked, 200), (colleague, 404)):
        buyer = plane.holder(issuer.token(client_id, "list_functions", exp=until))
        assert (await buyer.get(version)).status == status
        listed = (await buyer.get("/v2/nvcf/functions?visibility=authorized")).body["functions"]
        assert len(listed) == (status == 200)
    removed = await seller.patch(f"{path}/remove", {"authorizedParty": party})
    assert removed.body["function"]["authorizedParties"] == []
    assert (await seller.post(path, {"authorizedParties": []})).status == 200


async def test_an_accounts_limit_holds(admin: Client, owner: Client, account: str) -> None:
    await admin.patch(at(account), {"maxFunctionsAllowed": 1})
    await owner.create()
    assert (await owner.post("/v2/nvcf/functions", IMAGE)).status == 400
    await admin.patch(at(account), {"maxFunctionsAllowed": 2})
    await owner.create()


async def test_an_account_is_made_once(admin: Client, account: str) -> None:
    assert (await admin.post(at(account), {"name": "Acme"})).status == 200
    again = await admin.post(at(account), {"name": "Other"})
    assert again.status == 409
    assert (await admin.get(at(account))).body["account"]["name"] == "Acme"


async def test_an_account_with_functions_stays(
    plane: IdentityPlane, admin: Client, owner: Client, account: str
) -> None:
    function_id, version_id = await owner.create()
    assert (await admin.delete(at(account))).status == 409
    await owner.delete(f"/v2/nvcf/functions/{function_id}/versions/{version_id}")
    assert (await owner.get(at(account))).status == 200
    assert (await admin.delete(at(account))).status == 204
    assert (await owner.get(at(account))).status == 401


async def test_a_deleted_account_is_gone_for_who_has_a_token_of_it(
    plane: IdentityPlane, admin: Client, account: str
) -> None:
    holder = await plane.admin(account)
    function_id, version_id = await holder.create()
    path = f"/v2/nvcf/functions/{function_id}/versions/{version_id}"
    token = await holder.post(f"/v2/nvcf/tokens/functions/{function_id}", {"clientId": "browser"})
    invoker = plane.holder(token.body["access_token"])
    assert (await holder.delete(path)).status == 204
    assert (await invoker.get("/v2/nvcf/functions")).status == 403
    answers = await asyncio.gather(*[admin.delete(at(account)) for _ in range(3)])
    assert sorted(answer.status for answer in answers) == [204, 404, 404]
    for told in (
        await holder.get("/v2/nvcf/functions"),
        await holder.post("/v2/nvcf/functions", IMAGE),
        await holder.post("/v1/keys", {"authorizations": {"policies": []}}),
        await invoker.get("/v2/nvcf/functions"),
    ):
        assert told.status == 401


async def test_owners_see_and_name_their_account_and_no_more(
    admin: Client, owner: Client, account: str
) -> None:
    other = f"other-{uuid4().hex}"
    await admin.post(at(other), {"name": "Other"})
    assert (await owner.patch(at(account), {"name": "Renamed"})).status == 200
    assert (await owner.get(at(account))).body["account"]["name"] == "Renamed"
    assert (await owner.patch(at(account), {"maxFunctionsAllowed": 1000})).status == 403
    assert (await owner.get(at(other))).status == 404
    assert (await owner.patch(at(other), {"name": "Mine"})).status == 404
    for told in (
        await owner.get("/v2/nvcf/accounts"),
        await owner.post(at(f"new-{account}"), {"name": "Mine"}),
        await owner.delete(at(account)),
        await owner.patch(at(account, "/clients/associate"), {"clientId": "bob"}),
        await owner.patch(at(account, "/clients/disassociate"), {"clientId": "bob"}),
    ):
        assert told.status == 403
    assert (await admin.get(at(other))).body["account"]["name"] == "Other"


async def test_a_client_acts_for_one_account(admin: Client, owner: Client, account: str) -> None:
    client_id = f"client-{uuid4().hex}"
    other = f"other-{uuid4().hex}"
    await admin.post(at(other), {"name": "Other"})
    told = await admin.patch(at(account, "/clients/associate"), {"clientId": client_id})
    assert told.body["account"]["adminClientIds"] == [client_id]
    for nca_id in (account, other):
        again = await admin.patch(at(nca_id, "/clients/associate"), {"clientId": client_id})
        assert again.status == 409
    taken = await admin.post(at(f"new-{account}"), {"name": "Newest", "adminClientId": client_id})
    assert taken.status == 409
    seen = await owner.get(f"/v2/nvcf/clients/{client_id}")
    assert seen.body == {"client": {"clientId": client_id, "ncaId": account}}
    wrong = await admin.patch(at(other, "/clients/disassociate"), {"clientId": client_id})
    assert wrong.status == 404
    gone = await admin.patch(at(account, "/clients/disassociate"), {"clientId": client_id})
    assert gone.body["account"]["adminClientIds"] == []


async def test_a_jwt_acts_for_the_account_of_its_client(
    plane: IdentityPlane, issuer: TokenIssuer, admin: Client, owner: Client, account: str
) -> None:
    subject = f"client-{uuid4().hex}"
    bob = plane.holder(issuer.token(subject, "list_functions", "register_function"))
    told = await bob.get("/v2/nvcf/functions")
    assert told.status == 404
    assert told.headers["content-type"] == "application/problem+json"
    await admin.patch(at(account, "/clients/associate"), {"clientId": subject})
    function_id, _ = await owner.create()
    listed = (await bob.get("/v2/nvcf/functions?visibility=private")).body["functions"]
    assert [one["id"] for one in listed] == [function_id]
    assert (await bob.get("/v2/nvcf/accounts")).status == 403
    await admin.patch(at(account, "/clients/disassociate"), {"clientId": subject})
    assert (await bob.get("/v2/nvcf/functions")).status == 404


@pytest.mark.parametrize("claims", [{"aud": "else"}, {"exp": 1}, {"iss": "https://else.where"}])
async def test_a_jwt_that_is_not_for_us_is_refused(
    plane: IdentityPlane, issuer: TokenIssuer, claims: dict[str, Any]
) -> None:
    token = issuer.token("bob", "list_functions", **claims)
    assert (await plane.holder(token).get("/v2/nvcf/functions")).status == 401


@pytest.mark.parametrize("nca_id", ["*", "x" * 129])
async def test_some_names_are_for_no_account(admin: Client, nca_id: str) -> None:
    assert (await admin.post(at(nca_id), {"name": "Some name"})).status == 400


@pytest.mark.parametrize(
    "body", [{}, {"name": "abc"}, {"name": "x" * 37}, {"name": "Acme", "maxFunctionsAllowed": -1}]
)
async def test_what_no_account_can_be_is_refused(
    admin: Client, account: str, body: dict[str, object]
) -> None:
    assert (await admin.post(at(account), body)).status == 400
