"""The secret of webhooks over the API."""

from tests.support.control import SCOPES
from tests.support.identity import Clock, IdentityPlane

PATH = "/v2/webhooks/secret"


async def test_an_account_reads_and_rotates_its_own_secret(
    plane: IdentityPlane, account: str, clock: Clock
) -> None:
    client = await plane.client(account, SCOPES | {"account_setup"})
    first = (await client.call("GET", PATH)).body
    assert first["secret"].startswith("whsec_")
    assert "previousSecret" not in first
    assert (await client.call("GET", PATH)).body == first
    rotated = (await client.call("POST", f"{PATH}/rotate")).body
    assert rotated["secret"] != first["secret"]
    assert rotated["previousSecret"] == first["secret"]
    assert (await client.call("GET", PATH)).body == rotated
    other = await plane.client(f"{account}-2", SCOPES | {"account_setup"})
    assert (await other.call("GET", PATH)).body["secret"] not in rotated.values()


async def test_the_secret_needs_the_scope_of_keys(plane: IdentityPlane, account: str) -> None:
    client = await plane.client(account, SCOPES)
    assert (await client.call("GET", PATH)).status == 403
    assert (await client.call("POST", f"{PATH}/rotate")).status == 403
