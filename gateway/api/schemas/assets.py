"""Assets: request body, query and responses (`docs/wire.md` §27)."""

from typing import Annotated

from pydantic import Field

from gateway.api.schemas.fields import Body, Limit, Query, Uuid, View
from runtime.text_rules import text_rule

MediaType = Annotated[
    str,
    text_rule(
        r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+( *;[\x20-\x7e]*)?$",
        "be a media type such as image/png",
        max_length=256,
    ),
]
HeaderText = Annotated[
    str,
    text_rule(
        r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
        "consist of printable ASCII characters, because it is sent as a header",
        max_length=1024,
    ),
]


class CreateAsset(Body):
    """The asset that will be uploaded."""

    content_type: MediaType
    """The upload must have this Content-Type, and the worker gets it."""
    description: HeaderText
    """The upload must have it as the header x-amz-meta-nvcf-asset-description."""


class AssetsQuery(Query):
    """The page of the list."""

    limit: Limit | None = None
    """When absent, all assets."""
    cursor: Uuid | None = None
    """The cursor of the previous page."""


class CreatedAsset(View):
    """An asset to upload."""

    asset_id: str
    upload_url: str
    """PUT the file there within an hour, with the headers Content-Type and
    x-amz-meta-nvcf-asset-description."""
    content_type: str
    description: str


class AssetId(View):
    """An asset in a list."""

    asset_id: str


class AssetsResponse(View):
    """The uploaded assets of the account."""

    assets: list[AssetId]
    cursor: str | None = None
    """There are more assets, if this is there."""


class AssetView(View):
    """An uploaded asset."""

    asset_id: str
    description: str
    content_type: str
    created_at: str


class AssetResponse(View):
    """An uploaded asset."""

    asset: AssetView


class ContentRedirect(View):
    """Where the file is."""

    presigned_url: Annotated[str, Field()]
    """GET it within an hour; ranges are possible."""
