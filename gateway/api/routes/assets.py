"""Assets: files that an account uploads as input for calls (`docs/wire.md` §27)."""

from collections.abc import AsyncIterator, Mapping

from pydantic import BaseModel

from gateway.api.route import BATCH, AnyRoute, Api, Call, Listing, Route
from gateway.api.schemas.assets import (
    AssetId,
    AssetResponse,
    AssetsQuery,
    AssetsResponse,
    AssetView,
    ContentRedirect,
    CreateAsset,
    CreatedAsset,
)
from gateway.domain.lifecycle import timestamp


async def create(api: Api, call: Call[CreateAsset, None]) -> CreatedAsset:
    """Return the URL to which a new asset is to be uploaded."""
    body = call.body
    new = await api.assets.create(call.account, body.content_type, body.description, call.base_url)
    return CreatedAsset(
        asset_id=new.asset_id,
        upload_url=new.upload_url,
        content_type=body.content_type,
        description=body.description,
    )


async def list_assets(api: Api, call: Call[None, AssetsQuery]) -> Listing:
    """List the uploaded assets of the account, by id."""
    page = _Page(api, call)
    return Listing("assets", page.batches(), page.tail)


async def get(api: Api, call: Call[None, None]) -> AssetResponse:
    """Describe an uploaded asset."""
    asset = await api.assets.get(call.account, call.variable("assetId"))
    view = AssetView(
        asset_id=asset.asset_id,
        description=asset.description,
        content_type=asset.content_type,
        created_at=timestamp(asset.created_at),
    )
    return AssetResponse(asset=view)


async def delete(api: Api, call: Call[None, None]) -> None:
    """Delete an asset. Calls that read it already go on."""
    await api.assets.delete(call.account, call.variable("assetId"))


async def redirect(api: Api, call: Call[None, None]) -> ContentRedirect:
    """Return a URL of an asset's file."""
    asset_id = call.variable("assetId")
    url = await api.assets.download_url(call.account, asset_id, call.base_url)
    return ContentRedirect(presigned_url=url)


class _Page:
    """One page of a list, read as it is sent."""

    def __init__(self, api: Api, call: Call[None, AssetsQuery]) -> None:
        self._ids = api.assets.ids(call.account, call.query.cursor or "")
        self._limit = call.query.limit
        self._cursor = ""

    async def batches(self) -> AsyncIterator[list[BaseModel]]:
        """Yield the assets, up to the limit."""
        batch: list[BaseModel] = []
        last, count = "", 0
        async for asset_id in self._ids:
            if count == self._limit:
                self._cursor = last
                break
            last, count = asset_id, count + 1
            batch.append(AssetId(asset_id=asset_id))
            if len(batch) >= BATCH:
                yield batch
                batch = []
        yield batch

    def tail(self) -> Mapping[str, object]:
        """Return the cursor, if there are more assets."""
        return {"cursor": self._cursor} if self._cursor else {}


_TAG = "assets"
_PATH = "/v2/nvcf/assets"
_SCOPES = ("invoke_function",)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        _PATH,
        create,
        "Create an asset",
        _TAG,
        _SCOPES,
        CreatedAsset,
        body=CreateAsset,
    ),
    Route(
        "GET",
        _PATH,
        list_assets,
        "List the uploaded assets",
        _TAG,
        _SCOPES,
        AssetsResponse,
        query=AssetsQuery,
    ),
    Route("GET", f"{_PATH}/{{assetId}}", get, "Get an asset", _TAG, _SCOPES, AssetResponse),
    Route("DELETE", f"{_PATH}/{{assetId}}", delete, "Delete an asset", _TAG, _SCOPES, status=204),
    Route(
        "GET",
        f"{_PATH}/{{assetId}}/content-redirect",
        redirect,
        "Get a URL of an asset's file",
        _TAG,
        _SCOPES,
        ContentRedirect,
    ),
)
