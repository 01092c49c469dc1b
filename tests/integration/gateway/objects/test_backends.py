"""What every backend of the object store does."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from gateway.objects.interface import PIECE_BYTES, ObjectInfo, ObjectNotFound, ObjectStore
from gateway.objects.open import LocalOptions, make_object_store
from gateway.objects.s3 import PART_BYTES, S3Options
from runtime.ids import new_uuid
from tests.support.objects import chunks, read_object, signer

TEXT = "text/plain"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    options: LocalOptions | S3Options = LocalOptions(tmp_path / "objects")
    if request.param == "s3":
        url = request.getfixturevalue("s3_server")
        bucket = f"bucket-{new_uuid()}"
        async with httpx.AsyncClient() as client:
            (await client.put(f"{url}/{bucket}")).raise_for_status()
        options = S3Options(bucket, url, "us-east-1", "access", "secret")
    made = make_object_store(options, signer())
    await made.open()
    yield made
    await made.close()


async def keys_below(store: ObjectStore, prefix: str, after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, after)]


async def test_an_object_keeps_its_body_content_type_and_metadata(store: ObjectStore) -> None:
    meta = {"nvcf-asset-description": "a photo"}
    await store.put_bytes("assets/a/1", b"body", content_type="image/png", meta=meta)
    info = await store.stat("assets/a/1")
    assert info is not None
    assert (info.size, info.content_type, dict(info.meta)) == (4, "image/png", meta)
    assert info.etag
    async with await store.get("assets/a/1") as reader:
        assert isinstance(reader.info, ObjectInfo)
        assert reader.info.size == 4
        assert b"".join([piece async for piece in reader]) == b"body"


async def test_a_long_body_arrives_in_pieces(store: ObjectStore) -> None:
    part = bytes(range(256)) * 1024
    await store.put("large/1", chunks(part, part, part, b"end"), size=None, content_type=TEXT)
    async with await store.get("large/1") as reader:
        pieces = [piece async for piece in reader]
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert b"".join(pieces) == part * 3 + b"end"
    assert await read_object(store, "large/1", 255, 256) == b"\xff\x00"
    assert await read_object(store, "large/1", len(part) * 3) == b"end"
    assert (
        await read_object(store, "large/1", 5, PIECE_BYTES + 9) == (part * 2)[5 : PIECE_BYTES + 10]
    )


async def test_a_body_of_several_parts(store: ObjectStore) -> None:
    part = bytes(range(256)) * (PART_BYTES // 256)
    await store.put("large/1", chunks(part[:-1], part, b"end"), size=None, content_type=TEXT)
    info = await store.stat("large/1")
    assert info is not None
    assert info.size == 2 * PART_BYTES + 2
    assert await read_object(store, "large/1", PART_BYTES - 3, PART_BYTES) == b"\xfd\xfe\x00\x01"
    assert await read_object(store, "large/1", 2 * PART_BYTES) == b"nd"
    assert await read_object(store, "large/1", 3 * PART_BYTES) == b""


async def test_a_body_that_breaks_off_leaves_nothing(store: ObjectStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (PIECE_BYTES + 1)
        raise ConnectionError

    await store.put_bytes("assets/a/1", b"older", content_type=TEXT)
    with pytest.raises(ConnectionError):
        await store.put("assets/a/1", broken(), size=None, content_type=TEXT)
    with pytest.raises(ConnectionError):
        await store.put("assets/a/2", broken(), size=None, content_type=TEXT)
    with pytest.raises(ValueError, match="announced"):
        await store.put("assets/a/2", chunks(b"abc"), size=4, content_type=TEXT)
    assert await keys_below(store, "") == ["assets/a/1"]
    assert await read_object(store, "assets/a/1") == b"older"


async def test_what_is_not_there(store: ObjectStore) -> None:
    assert await store.stat("assets/a/1") is None
    await store.delete("assets/a/1")
    with pytest.raises(ObjectNotFound):
        await store.get("assets/a/1")
    await store.put_bytes("assets/a/1", b"", content_type=TEXT)
    assert await read_object(store, "assets/a/1") == b""
    await store.delete("assets/a/1")
    assert await store.stat("assets/a/1") is None


async def test_a_listing_is_sorted_and_stays_below_its_prefix(store: ObjectStore) -> None:
    keys = ["a", "a-b", "a.c/1", "a/1", "a/12", "a/12/3", "a/2", "a0", "ab/1", "b"]
    for key in reversed(keys):
        await store.put_bytes(key, b"", content_type=TEXT)
    assert await keys_below(store, "") == keys
    assert await keys_below(store, "a/") == ["a/1", "a/12", "a/12/3", "a/2"]
    for at, key in enumerate(keys):
        assert await keys_below(store, "", after=key) == keys[at + 1 :]
    assert await keys_below(store, "none/") == []
    with pytest.raises(ValueError, match="prefix"):
        await keys_below(store, "a")


async def test_a_key_never_leads_elsewhere(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="key"):
        await store.put_bytes("a/../b", b"", content_type=TEXT)
    with pytest.raises(ValueError, match="key"):
        await store.stat("a/../b")
