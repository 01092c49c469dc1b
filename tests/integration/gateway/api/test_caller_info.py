"""`ngcsdk` asks NGC whose key it has before each call (`docs/compatibility.md`)."""

from urllib.parse import urlencode

from tests.support.control import Client

PATH = "/v3/keys/get-caller-info"
FORM = {"content-type": "application/x-www-form-urlencoded"}


async def test_the_account_of_a_key_is_told_to_its_holder(client: Client) -> None:
    form = urlencode({"credentials": client.key or ""}).encode()
    told = await client.call("POST", PATH, data=form, headers=FORM)
    assert (told.status, told.body["type"]) == (200, "SERVICE_KEY")
    own = (await client.post("/v2/nvcf/functions", IMAGE)).body["function"]
    assert told.body["orgName"] == own["ncaId"]


async def test_an_unknown_key_is_refused_like_anywhere(client: Client) -> None:
    for form, status in ((b"credentials=nvapi-nobody", 401), (b"", 400), (b"other=1", 400)):
        told = await client.call("POST", PATH, data=form, headers=FORM)
        assert told.status == status, form
        assert told.body["detail"]


IMAGE = {"name": "echo", "inferenceUrl": "/echo", "containerImage": "demo"}
