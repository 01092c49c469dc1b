"""The assets that a call names as its input: the header ``NVCF-INPUT-ASSET-REFERENCES``."""

import asyncio
from collections.abc import Sequence

from gateway.errors import BadRequest
from gateway.objects.assets import Assets, InputAsset
from wire.ids import parse_uuid

MAX_REFERENCES = 64


def parse_references(value: bytes) -> tuple[str, ...]:
    """Return the asset ids in a header's value: UUIDs, separated by commas; each one once.

    Raises `BadRequest` for anything else, and for more than `MAX_REFERENCES`.
    """
    if not value.strip():
        return ()
    parts = value.split(b",", MAX_REFERENCES)
    ids = [parse_uuid(part.strip()) for part in parts]
    if len(parts) > MAX_REFERENCES:
        raise BadRequest(f"NVCF-INPUT-ASSET-REFERENCES names more than {MAX_REFERENCES} assets")
    known = tuple(dict.fromkeys(asset_id for asset_id in ids if asset_id is not None))
    if None in ids:
        raise BadRequest("NVCF-INPUT-ASSET-REFERENCES is not a list of UUIDs")
    return known


async def resolve_references(
    assets: Assets, account: str, asset_ids: Sequence[str], base_url: str
) -> list[InputAsset]:
    """Return the assets with URLs, for `wire.envelope.encode_assets`.

    ``base_url`` is ``scheme://authority`` of the process that holds the call, which its worker
    reaches. Raises `gateway.objects.assets.AssetNotFound`, also for assets of other accounts, and
    `gateway.errors.StoreUnavailable`.
    """
    found = await asyncio.gather(
        *(assets.input_asset(account, asset_id, base_url) for asset_id in asset_ids)
    )
    return list(found)
