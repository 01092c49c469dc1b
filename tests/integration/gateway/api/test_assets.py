"""The routes of assets: whose they are, how many there may be, and how long they last."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.objects.assets import DESCRIPTION, folder_of
from gateway.objects.local import LocalObjects
from runtime.ids import new_uuid
from tests.support.control import Client, ControlPlane, control_plane
from tests.support.nats_server import NatsServer
from tests.support.objects import assets_in, local_objects

ASSETS = "/v2/nvcf/assets"
BODY = {"contentType": "image/png", "description": "a photo"}


class Ahead:
    """Unix time, plus what a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.seconds


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[LocalObjects]:
    store = local_objects(tmp_path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def plane(
    shared_nats_server: NatsServer, objects: LocalObjects, clock: Ahead
) -> AsyncIterator[ControlPlane]:
    assets = assets_in(objects, clock, account_assets=3, account_bytes=100)
    async with control_plane(shared_nats_server.url, assets=assets) as plane:
        yield plane


async def upload(objects: LocalObjects, account: str, size: int = 1) -> str:
    """Put an asset as its URL would."""
    asset_id = new_uuid()
    await objects.put_bytes(
        folder_of(account) + asset_id,
        b"x" * size,
        content_type="image/png",
        meta={DESCRIPTION: "a photo"},
    )
    return asset_id


async def listed(client: Client, query: str = "") -> Any:
    response = await client.get(ASSETS + query)
    assert response.status == 200
    return response.body


async def test_an_account_has_only_its_own_assets(
    plane: ControlPlane, objects: LocalObjects
) -> None:
    name = uuid4().hex
    own, longer = await plane.client(name), await plane.client(f"{name}c")
    capital = await plane.client(name.upper() + "A")
    asset_id = await upload(objects, f"{name}c")
    assert await listed(own) == {"assets": []}
    assert await listed(capital) == {"assets": []}
    assert await listed(longer) == {"assets": [{"assetId": asset_id}]}
    for call in (own.get, own.delete):
        assert (await call(f"{ASSETS}/{asset_id}")).status == 404
    assert (await own.get(f"{ASSETS}/{asset_id}/content-redirect")).status == 404
    assert (await longer.get(f"{ASSETS}/{asset_id.upper()}")).status == 200
    assert (await longer.delete(f"{ASSETS}/{asset_id}")).status == 204
    assert (await longer.get(f"{ASSETS}/nothing")).status == 400


async def test_urls_lead_to_the_address_that_the_caller_called(
    plane: ControlPlane, objects: LocalObjects, client: Client
) -> None:
    made = await client.post(ASSETS, BODY, headers={"x-forwarded-proto": "https"})
    assert made.status == 200
    host = plane.url.removeprefix("http://")
    assert made.body["uploadUrl"].startswith(f"https://{host}/v2/objects/assets/own-")
    assert await listed(client) == {"assets": []}


@pytest.mark.parametrize(
    "change",
    [
        {"contentType": None},
        {"contentType": "image"},
        {"contentType": "image/png\r\nx: y"},
        {"description": None},
        {"description": ""},
        {"description": "für"},
        {"description": "x" * 1025},
    ],
)
async def test_what_no_upload_could_send_is_refused(client: Client, change: Any) -> None:
    assert (await client.post(ASSETS, {**BODY, **change})).status == 400


async def test_number_and_bytes_of_an_account_are_bounded(
    plane: ControlPlane, objects: LocalObjects
) -> None:
    for sizes, is_full in (([1, 1], False), ([1, 1, 1], True), ([99], False), ([100], True)):
        account = uuid4().hex
        client = await plane.client(account)
        for size in sizes:
            await upload(objects, account, size)
        made = await client.post(ASSETS, BODY)
        assert made.status == (400 if is_full else 200), sizes
        assert made.body.get("reason") == ("asset_quota" if is_full else None)


async def test_a_list_has_pages(plane: ControlPlane, objects: LocalObjects) -> None:
    account = uuid4().hex
    client = await plane.client(account)
    ids = sorted([await upload(objects, account) for _ in range(3)])
    first = await listed(client, "?limit=2")
    assert [asset["assetId"] for asset in first["assets"]] == ids[:2]
    rest = await listed(client, f"?limit=2&cursor={first['cursor']}")
    assert rest == {"assets": [{"assetId": ids[2]}]}
    assert (await client.get(f"{ASSETS}?cursor=x")).status == 400


async def test_an_asset_is_gone_when_its_time_is_over(
    plane: ControlPlane, objects: LocalObjects, clock: Ahead
) -> None:
    account = uuid4().hex
    client = await plane.client(account)
    asset_id = await upload(objects, account)
    clock.seconds = 86_390
    assert (await client.get(f"{ASSETS}/{asset_id}")).status == 200
    clock.seconds = 86_400
    assert (await client.get(f"{ASSETS}/{asset_id}")).status == 404
    assert await listed(client) == {"assets": []}


async def test_the_scope_is_that_of_calls(plane: ControlPlane) -> None:
    client = await plane.client("acme", frozenset({"list_functions"}))
    assert (await client.get(ASSETS)).status == 403
    assert (await plane.stranger().get(ASSETS)).status == 401
