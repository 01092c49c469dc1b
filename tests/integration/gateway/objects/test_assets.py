"""Assets of a call, and the sweep, on a folder."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import BadRequest, Conflict
from gateway.objects.assets import AssetNotFound, folder_of
from gateway.objects.local import LocalObjects
from gateway.objects.references import resolve_references
from gateway.objects.sweep import SWEEP_S, Lifetime, Sweep, SweepTurns
from runtime.ids import new_uuid
from tests.support.objects import NOW, assets_in, files_below, local_objects
from wire.decoded_envelope import decode_call_head
from wire.envelope import encode_assets


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalObjects]:
    made = local_objects(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_a_call_gets_urls_of_its_account_s_assets(store: LocalObjects) -> None:
    assets = assets_in(store, max_bytes=10)
    ids = [new_uuid(), new_uuid()]
    for asset_id in ids:
        await store.put_bytes(folder_of("a b") + asset_id, b"x", content_type="image/png")
    found = await resolve_references(assets, "a b", ids, "http://10.0.0.1:8090")
    assert [asset.asset_id for asset in found] == ids
    assert all(asset.url.startswith("http://10.0.0.1:8090/v2/objects/") for asset in found)
    head = decode_call_head(encode_assets(found))
    assert [tuple(asset) for asset in head.assets] == [tuple(asset) for asset in found]
    for account, wanted in (("a", ids), ("a b", [*ids, new_uuid()])):
        with pytest.raises(AssetNotFound):
            await resolve_references(assets, account, wanted, "")
    await store.put_bytes(folder_of("a b") + ids[0], b"x" * 11, content_type="image/png")
    with pytest.raises(BadRequest, match="more than 10 bytes"):
        await resolve_references(assets, "a b", ids, "")


class TurnDocument:
    """The document in the store that says who swept when."""

    def __init__(self) -> None:
        self.data = b""
        self.revision = 0

    async def read(self) -> tuple[bytes, int] | None:
        return (self.data, self.revision) if self.revision else None

    async def write(self, data: bytes, revision: int) -> int:
        if revision != self.revision:
            raise Conflict
        self.data, self.revision = data, revision + 1
        return self.revision


async def test_one_process_sweeps_at_a_time() -> None:
    document = TurnDocument()
    turns = [SweepTurns(document.read, document.write) for _ in range(2)]
    assert await turns[0].take(NOW)
    assert not await turns[1].take(NOW + 1)
    assert await turns[1].take(NOW + SWEEP_S)
    document.data = b"no JSON"
    assert await turns[0].take(NOW)

    async def stale() -> tuple[bytes, int] | None:
        return b'{"at":0}', document.revision - 1

    assert not await SweepTurns(stale, document.write).take(NOW)


async def test_a_sweep_deletes_what_is_older_than_it_may_be(
    store: LocalObjects, tmp_path: Path
) -> None:
    for key in ("assets/a/1", "assets/b/2", "responses/3"):
        await store.put_bytes(key, b"", content_type="text/plain")
    document = TurnDocument()
    now = time.time()
    sweep = Sweep(
        store,
        [Lifetime("assets/", 60.0)],
        SweepTurns(document.read, document.write),
        lambda: now,
    )
    assert await sweep.sweep() == 0
    now += 61
    assert await sweep.sweep() == 2
    assert [name for name in files_below(tmp_path) if "lock" not in name] == ["responses/3+/3+"]
