"""What every backend of the object store does."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from gateway.errors import StoreUnavailable
from gateway.objects.interface import DATA_BYTES, ObjectInfo, ObjectNotFound, ObjectStore
from gateway.objects.open import LocalOptions, make_object_store
from gateway.objects.s3 import PART_BYTES, S3Options
from runtime.ids import new_uuid
from tests.support.objects import chunks, read_object, signer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "text/plain"


KEYS = ("access-key", "secret-key")
"""The login of a server that ``TEST_S3_URL`` names, such as a MinIO, in place of moto."""


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    if "TEST_S3_URL" in os.environ:
        yield os.environ["TEST_S3_URL"]
        return
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def s3_store(s3_server: str) -> AsyncIterator[ObjectStore]:
    """Return a store in a new bucket, which all tests of the module use: it takes a while."""
    options = S3Options(f"bucket-{new_uuid()}", s3_server, "us-east-1", *KEYS)
    opening: Any = get_session().create_client(
        "s3",
        region_name=options.region,
        endpoint_url=options.endpoint_url,
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
    )
    async with opening as client:
        await client.create_bucket(Bucket=options.bucket)
    made = make_object_store(options, signer())
    await made.open()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def local_store(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made = make_object_store(LocalOptions(tmp_path / "objects"), signer())
    await made.open()
    yield made
    await made.close()


@pytest.fixture(params=["local_store", "s3_store"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    found: ObjectStore = request.getfixturevalue(request.param)
    return found


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
    assert max(map(len, pieces)) <= DATA_BYTES
    assert b"".join(pieces) == part * 3 + b"end"
    assert await read_object(store, "large/1", 255, 256) == b"\xff\x00"
    assert await read_object(store, "large/1", len(part) * 3) == b"end"
    assert await read_object(store, "large/1", 5, DATA_BYTES + 9) == (part * 2)[5 : DATA_BYTES + 10]


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
        yield b"x" * (DATA_BYTES + 1)
        raise ConnectionError

    await store.put_bytes("assets/a/1", b"older", content_type=TEXT)
    with pytest.raises(ConnectionError):
        await store.put("assets/a/1", broken(), size=None, content_type=TEXT)
    with pytest.raises(ConnectionError):
        await store.put("assets/a/2", broken(), size=None, content_type=TEXT)
    with pytest.raises(ValueError, match="announced"):
        await store.put("assets/a/2", chunks(b"abc"), size=4, content_type=TEXT)
    assert await keys_below(store, "assets/a/") == ["assets/a/1"]
    assert await read_object(store, "assets/a/1") == b"older"


async def test_what_is_not_there(store: ObjectStore) -> None:
    await store.delete("assets/a/1")
    await store.delete("assets/a/1")
    assert await store.stat("assets/a/1") is None
    with pytest.raises(ObjectNotFound):
        await store.get("assets/a/1")
    await store.put_bytes("assets/a/1", b"", content_type=TEXT)
    assert await read_object(store, "assets/a/1") == b""
    await store.delete("assets/a/1")
    assert await store.stat("assets/a/1") is None


async def test_a_listing_is_sorted_and_stays_below_its_prefix(store: ObjectStore) -> None:
    keys = ["a-b", "a.c/1", "a/1", "a/12", "a/123/4", "a/2", "a0", "ab/1", "b"]
    async for info in store.list(""):
        await store.delete(info.key)
    for key in reversed(keys):
        await store.put_bytes(key, b"", content_type=TEXT)
    assert await keys_below(store, "") == keys
    assert await keys_below(store, "a/") == ["a/1", "a/12", "a/123/4", "a/2"]
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


async def test_signed_urls_of_s3(s3_store: ObjectStore) -> None:
    store = s3_store
    meta = {"nvcf-asset-description": "a photo, of  us"}
    expires_at = time.time() + 60
    up = await store.upload_url(
        "assets/a/1", expires_at, content_type="image/png", max_bytes=10, meta=meta
    )
    headers = {"content-type": "image/png", "x-amz-meta-nvcf-asset-description": meta.popitem()[1]}
    down = await store.download_url("assets/a/1", expires_at, file_name="a b.png")
    async with httpx.AsyncClient() as client:
        assert (await client.put(up, content=b"0123456789", headers=headers)).status_code == 200
        part = await client.get(down, headers={"range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"234")
        assert part.headers["content-type"] == "image/png"
        assert part.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.png"
        if "TEST_S3_URL" in os.environ:  # moto checks no signatures
            for changed in ({"content-type": "text/html"}, {"x-amz-meta-more": "x"}):
                refused = await client.put(up, content=b"", headers={**headers, **changed})
                assert refused.status_code in {400, 403}
            refused = await client.get(down.replace("assets/a/1", "assets/a/2"))
            assert refused.status_code == 403
    info = await store.stat("assets/a/1")
    assert info is not None
    assert (info.size, info.content_type) == (10, "image/png")
    assert info.meta["nvcf-asset-description"].split() == ["a", "photo,", "of", "us"]


async def test_an_s3_that_is_away(s3_server: str) -> None:
    options = S3Options("absent-bucket", "http://127.0.0.1:1", "us-east-1", *KEYS)
    for away in (options, options._replace(endpoint_url=s3_server)):
        store = make_object_store(away, signer())
        with pytest.raises(StoreUnavailable):
            await store.open()
        await store.close()


async def test_objects_that_are_written_together_are_objects_of_their_own(
    store: ObjectStore,
) -> None:
    prefix = f"batch/{new_uuid()}/"
    bodies = {prefix + name: name.encode() * count for name, count in (("a", 3), ("b", 0))}
    bodies[prefix + "c"] = b"0123456789" * DATA_BYTES
    for _ in range(2):
        # The second time they replace those of the first.
        await store.put_batch(list(bodies.items()), content_type=TEXT)
    assert await keys_below(store, prefix) == list(bodies)
    for key, body in bodies.items():
        info = await store.stat(key)
        assert info is not None
        assert (info.size, info.content_type) == (len(body), TEXT)
        assert await read_object(store, key) == body
    assert await read_object(store, prefix + "c", 12, 15) == b"2345"
    await store.delete(prefix + "a")
    assert await store.stat(prefix + "a") is None
    assert await read_object(store, prefix + "c") == bodies[prefix + "c"]
