"""What NGC serves around NVCF's routes: paths below organizations, and who the caller is."""

from urllib.parse import urlencode

import pytest

from tests.support.control import IMAGE, Client, ControlPlane, deployment_path

CALLER = "/v3/keys/get-caller-info"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def member(plane: ControlPlane) -> Client:
    return await plane.client("acme")


async def test_the_account_of_a_key_is_told_to_its_holder(client: Client) -> None:
    form = urlencode({"credentials": client.key or ""}).encode()
    told = await client.call("POST", CALLER, data=form, headers=FORM)
    assert (told.status, told.body["type"]) == (200, "SERVICE_KEY")
    own = (await client.post("/v2/nvcf/functions", IMAGE)).body["function"]
    assert told.body["orgName"] == own["ncaId"]


async def test_an_unknown_key_is_refused_like_anywhere(client: Client) -> None:
    for form, status in ((b"credentials=nvapi-nobody", 401), (b"", 400), (b"other=1", 400)):
        told = await client.call("POST", CALLER, data=form, headers=FORM)
        assert told.status == status, form
        assert told.body["detail"]


@pytest.mark.parametrize("base", ["/v2/orgs/acme", "/v3/orgs/acme/team/t", "/v2/orgs/acme/teams/t"])
async def test_paths_below_an_organization_lead_to_the_same_routes(
    member: Client, base: str
) -> None:
    function_id, version_id = await member.deployed()
    path = deployment_path(function_id, version_id).replace("/v2/nvcf", f"{base}/nvcf")
    listed = (await member.get(f"{base}/nvcf/deployments")).body["deployments"]
    assert (await member.get(path)).body["deployment"] in listed
    assert (await member.delete(path)).body["function"]["status"] == "INACTIVE"
    gone = await member.get(path)
    assert (gone.status, gone.body["instance"]) == (404, path)
    assert (await member.get(f"{base}/nvcf/assets")).body == {"assets": []}
    assert (await member.get(f"{base}/functions")).status == 404


async def test_another_organization_is_refused(member: Client) -> None:
    for path in ("/v2/orgs/other/nvcf/functions", "/v2/orgs/other", "/v2/org/other/teams"):
        told = await member.get(path)
        assert (told.status, told.body["instance"]) == (403, path)
        assert "which is acme" in told.body["detail"]
    stranger = Client(member.session, None)
    assert (await stranger.get("/v2/orgs/other/nvcf/functions")).status == 401
    assert (await member.get("/v2/orgs/acme/nvcf/accounts/acme/functions")).status == 404


async def test_a_caller_is_told_its_organization(member: Client) -> None:
    (listed,) = (await member.get("/v2/orgs?page-size=100")).body["organizations"]
    assert listed == (await member.get("/v2/orgs/acme")).body["organizations"]
    assert (listed["name"], listed["displayName"]) == ("acme", "acme")
    assert (await member.get("/v2/org/acme/teams")).body["teams"] == []
    (role,) = (await member.get("/v2/users/me?org-name=acme")).body["userRoles"]
    assert role["org"] == listed
    assert (await member.get("/v2/users/me?org-name=other")).status == 403


@pytest.mark.parametrize("artifact", ["acme/repos/a/images/1", "nvidia/team/t/models/m/versions/1"])
async def test_registries_are_not_looked_into(member: Client, artifact: str) -> None:
    """`ngcsdk` asks before it creates a function, and goes on after a 403 only."""
    told = await member.get(f"/v2/org/{artifact}")
    assert (told.status, told.body["instance"]) == (403, f"/v2/org/{artifact}")
    assert "registries" in told.body["detail"]
