"""Signed URLs over real sockets: what they permit, ranges, limits, and broken uploads."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.dispatch.object_endpoint import MAX_TRANSFERS, ObjectEndpoint
from gateway.dispatch.responses import send_problem
from gateway.domain.cors import OPEN
from gateway.errors import GatewayError
from gateway.objects.assets import PREFIX, Assets, account_folder, folder_of
from gateway.objects.large_responses import PREFIX as LARGE_PREFIX
from gateway.objects.local import LocalObjects
from gateway.routing.cross_origin import PageAccess
from http1.server.limits import ServerLimits
from http1.server.listener import bind_sockets, listen
from http1.stream import IGNORED, Request, RequestStream, ResponseWriter
from runtime.settings import Address
from tests.support.objects import (
    NOW,
    Clock,
    assets_in,
    files_below,
    local_objects,
    read_object,
    signer,
)
from tests.support.waiting import PATIENCE_S, until

ASSET = "1f0c0000-0000-4000-8000-000000000000"
DESCRIPTION = "x-amz-meta-nvcf-asset-description"
HEADERS = {"content-type": "image/png", DESCRIPTION: "a photo"}
PAGE = PageAccess(OPEN, b"https://app.example", replaces=True)


class World:
    """A gateway's endpoint of objects on a socket, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.signer = signer(clock=self.clock)
        self.store: LocalObjects = local_objects(folder, self.signer)
        self.assets: Assets = assets_in(self.store, max_bytes=1_000_000)
        self.statuses: list[int] = []
        self.endpoint = ObjectEndpoint(
            self.store,
            self.signer,
            self.assets.room,
            lambda request, status, request_id: self.statuses.append(status),
        )
        self.address = ""
        self.client = httpx.AsyncClient(timeout=PATIENCE_S)

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        try:
            return self.endpoint.serve(request, client, PAGE)
        except GatewayError as error:
            send_problem(request, client, error)
            return IGNORED

    async def upload_url(
        self, max_bytes: int = 1_000_000, key: str = folder_of("acme") + ASSET
    ) -> str:
        return await self.store.upload_url(
            key,
            NOW + 60,
            content_type="image/png",
            max_bytes=max_bytes,
            meta={"nvcf-asset-description": "a photo"},
            base_url=self.address,
        )

    async def download_url(self, key: str, file_name: str = "") -> str:
        return await self.store.download_url(
            key, NOW + 60, base_url=self.address, file_name=file_name
        )

    @property
    def bodies(self) -> list[str]:
        return [name for name in files_below(self.folder) if not name.endswith(".lock")]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    it = World(tmp_path)
    await it.store.open()
    sockets = bind_sockets([Address.parse("127.0.0.1:0")], reuse_port=False)
    listener = await listen(sockets, it.serve, ServerLimits())
    it.address = f"http://{listener.addresses[0]}"
    yield it
    await it.client.aclose()
    listener.abort_all()
    await it.store.close()


async def test_a_file_goes_up_and_comes_down(world: World) -> None:
    url = await world.upload_url()
    sent = bytes(range(256)) * 3000
    response = await world.client.put(url, content=sent, headers=HEADERS)
    assert (response.status_code, response.content) == (200, b"")
    key = folder_of("acme") + ASSET
    info = await world.store.stat(key)
    assert info is not None
    assert dict(info.meta) == {"nvcf-asset-description": "a photo"}
    response = await world.client.get(await world.download_url(key, "my photo.png"))
    assert response.content == sent
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-length"] == str(len(sent))
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''my%20photo.png"
    assert response.headers["cache-control"] == "private"
    assert response.headers["access-control-allow-origin"] == "*"
    head = await world.client.head(await world.download_url(key))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(sent))
    assert head.headers["etag"] == response.headers["etag"]
    assert world.statuses == [200, 200, 200]


async def test_ranges(world: World) -> None:
    await world.store.put_bytes("large/1", b"0123456789", content_type="text/plain")
    url = await world.download_url("large/1")

    async def get(value: str, **headers: str) -> tuple[int, bytes, str | None]:
        response = await world.client.get(url, headers={"range": value, **headers})
        return response.status_code, response.content, response.headers.get("content-range")

    assert await get("bytes=2-4") == (206, b"234", "bytes 2-4/10")
    assert await get("bytes=7-") == (206, b"789", "bytes 7-9/10")
    assert await get("bytes=-3") == (206, b"789", "bytes 7-9/10")
    assert await get("bytes=8-99") == (206, b"89", "bytes 8-9/10")
    assert await get("bytes=1-2,4-5") == (200, b"0123456789", None)
    status, _, content_range = await get("bytes=10-")
    assert (status, content_range) == (416, "bytes */10")
    etag = (await world.client.head(url)).headers["etag"]
    assert await get("bytes=0-0", **{"if-range": etag}) == (206, b"0", "bytes 0-0/10")
    assert await get("bytes=0-0", **{"if-range": '"other"'}) == (200, b"0123456789", None)


async def test_nothing_is_read_or_written_without_a_valid_signature(world: World) -> None:
    await world.store.put_bytes("large/1", b"secret", content_type="text/plain")
    await world.store.put_bytes("large/2", b"secret", content_type="text/plain")
    down, up = await world.download_url("large/1"), await world.upload_url()
    refused = [
        await world.client.get(f"{world.address}/v2/objects/large/1"),
        await world.client.get(down.replace("large/1", "large/2")),
        await world.client.get(down.replace("expires=17", "expires=18")),
        await world.client.get(down[:-1] + ("0" if down[-1] != "0" else "1")),
        await world.client.get(down + "&file-name=x"),
        await world.client.get(down + "&signature=x"),
        await world.client.get(up),
        await world.client.put(down, content=b"x"),
        await world.client.put(up, content=b"x", headers={**HEADERS, "content-type": "text/html"}),
        await world.client.put(up, content=b"x", headers={**HEADERS, DESCRIPTION: "another"}),
        await world.client.put(up, content=b"x", headers={**HEADERS, "x-amz-meta-more": "y"}),
        await world.client.put(
            up.replace("max-bytes=1", "max-bytes=2"), content=b"x", headers=HEADERS
        ),
    ]
    assert {response.status_code for response in refused} == {403}
    assert {response.json()["reason"] for response in refused} == {"signature_invalid"}
    assert not any(b"secret" in response.content for response in refused)
    world.clock.now = NOW + 60
    for late in (
        await world.client.get(down),
        await world.client.put(up, content=b"x", headers=HEADERS),
    ):
        assert (late.status_code, late.json()["reason"]) == (403, "url_expired")
    assert (await world.client.post(down)).status_code == 405
    assert len(world.bodies) == 2


async def test_an_object_that_is_gone(world: World) -> None:
    url = await world.download_url("large/1")
    for response in (
        await world.client.get(url),
        await world.client.get(url, headers={"range": "bytes=0-1"}),
    ):
        assert response.status_code == 404


async def test_an_upload_that_is_too_long_leaves_nothing(world: World) -> None:
    url = await world.upload_url(max_bytes=300_000)
    response = await world.client.put(url, content=b"x" * 300_001, headers=HEADERS)
    assert response.status_code == 413

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(31):
            yield b"x" * 10_000

    response = await world.client.put(url, content=unannounced(), headers=HEADERS)
    assert response.status_code == 413
    await until(lambda: world.bodies == [])


async def test_the_account_s_bytes_bound_an_upload(world: World) -> None:
    world.assets = assets_in(world.store, account_bytes=10, account_assets=2)
    world.endpoint = ObjectEndpoint(
        world.store, world.signer, world.assets.room, lambda *response: None
    )
    await world.store.put_bytes(folder_of("acme") + "1", b"123456", content_type="text/plain")
    await world.store.put_bytes(folder_of("other") + "1", b"123456", content_type="text/plain")
    url = await world.upload_url()
    assert (await world.client.put(url, content=b"12345", headers=HEADERS)).status_code == 413
    assert (await world.client.put(url, content=b"1234", headers=HEADERS)).status_code == 200
    assert (await world.client.put(url, content=b"4321", headers=HEADERS)).status_code == 200
    await world.store.put_bytes(folder_of("acme") + "2", b"", content_type="text/plain")
    response = await world.client.put(url, content=b"1", headers=HEADERS)
    assert (response.status_code, response.json()["reason"]) == (400, "asset_quota")


async def test_uploads_that_end_at_the_same_time_have_no_more_than_the_account_s_bytes(
    world: World,
) -> None:
    world.assets = assets_in(world.store, account_bytes=10, account_assets=9)
    arrived, everyone = list[str](), asyncio.Event()

    async def room(key: str) -> int | None:
        found = await world.assets.room(key)
        arrived.append(key)
        # All have been let in before the first one ends.
        if len(arrived) == 4:
            everyone.set()
        await everyone.wait()
        return found

    world.endpoint = ObjectEndpoint(world.store, world.signer, room, lambda *response: None)
    keys = [folder_of("acme") + str(number) for number in range(4)]
    urls = [await world.upload_url(key=key) for key in keys]
    responses = await asyncio.gather(
        *(world.client.put(url, content=b"123456", headers=HEADERS) for url in urls)
    )
    assert sorted(response.status_code for response in responses) == [200, 413, 413, 413]
    assert len(world.bodies) == 1


async def test_a_client_that_leaves_while_it_uploads_leaves_nothing(world: World) -> None:
    url = httpx.URL(await world.upload_url())
    assert url.host is not None
    _, writer = await asyncio.open_connection(url.host, url.port)
    lines = [f"PUT {url.raw_path.decode()} HTTP/1.1", f"host: {url.host}", "content-length: 900000"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + b"x" * 600_000)
    await until(lambda: world.bodies)
    writer.transport.abort()
    await until(lambda: world.bodies == [])
    assert world.statuses == []


async def test_a_client_that_leaves_at_once_takes_no_place(world: World) -> None:
    """Also if it does so before the transfer has begun: its body is malformed from the start."""
    url = httpx.URL(world.address)
    request = b"GET /v2/objects/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"11170\r\n%b\r\nno size\r\n" % bytes(70_000)
    for _ in range(MAX_TRANSFERS):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(request + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
    response = await world.client.get(f"{world.address}/v2/objects/x")
    assert (response.status_code, response.json()["reason"]) == (403, "signature_invalid")


async def test_an_account_that_trickles_leaves_room_for_others(world: World) -> None:
    url = httpx.URL(world.address)
    writers = []

    async def trickle(key: str) -> None:
        upload = httpx.URL(await world.upload_url(key=key))
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            b"PUT %b HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n%b: a photo\r\n"
            b"content-length: 9\r\n\r\n1" % (upload.raw_path, DESCRIPTION.encode())
        )
        writers.append(writer)

    async def put(account: str, prefix: str = PREFIX) -> httpx.Response:
        upload = await world.upload_url(key=account_folder(prefix, account) + ASSET)
        return await world.client.put(upload, content=b"1", headers=HEADERS)

    for number in range(MAX_TRANSFERS):
        await trickle(f"{folder_of('acme')}{number}")
    # Those beyond its share were refused.
    await until(lambda: len(world.statuses) == MAX_TRANSFERS // 2)
    assert set(world.statuses) == {503}
    refused = await put("acme")
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (
        503,
        "too-many-transfers",
    )
    assert "the account has" in refused.json()["detail"].lower()
    # Its large responses are its own too.
    assert (await put("acme", LARGE_PREFIX)).status_code == 503
    assert (await put("other")).status_code == 200
    for writer in writers:
        writer.close()

    async def is_free() -> bool:
        return (await put("acme")).status_code == 200

    await until(is_free)


async def test_a_slow_reader_gets_all_of_it(world: World) -> None:
    body = bytes(range(256)) * 40_000
    await world.store.put_bytes("large/1", body, content_type="text/plain")
    url = await world.download_url("large/1")
    received = b""
    async with world.client.stream("GET", url) as response:
        async for piece in response.aiter_bytes(1_000_000):
            received += piece
            await asyncio.sleep(0)
    assert received == body
    assert await read_object(world.store, "large/1") == body
