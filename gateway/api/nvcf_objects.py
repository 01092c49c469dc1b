"""What NVIDIA's workers ask about objects: URLs for large responses, new URLs of input assets.

A worker asks about a request that it has. The process that holds the request says of which version
it is: another version's worker learns nothing of it.
"""

from typing import NamedTuple

from gateway.api.nvcf_workers import NvcfTokens
from gateway.api.route import Api
from gateway.domain.queued_request import QueuedRequest
from gateway.errors import NotFound
from gateway.objects.assets import InputAsset
from gateway.objects.large_responses import LargeResponseObjects
from wire.ids import parse_uuid


class RequestOfVersion(NamedTuple):
    """A request, and the version that its worker says it is of."""

    request_id: str
    function_id: str
    version_id: str


class NvcfObjects:
    """The calls. All raise `GatewayError` and `QueueError`."""

    def __init__(
        self, api: Api, tokens: NvcfTokens, large: LargeResponseObjects, worker_url: str
    ) -> None:
        """``worker_url`` is ``scheme://authority`` at which workers reach this process."""
        self._api = api
        self._tokens = tokens
        self._large = large
        self._worker_url = worker_url

    async def upload_url(self, text: str, asked: RequestOfVersion) -> str:
        """Return where the worker puts the response of the request."""
        found = await self._find(text, asked)
        return await self._large.upload_url(found.account, asked.request_id, self._worker_url)

    async def download_url(self, text: str, asked: RequestOfVersion) -> str:
        """Return where the client of the request gets its response."""
        found = await self._find(text, asked)
        outside = self._api.objects_url or found.url
        return await self._large.download_url(found.account, asked.request_id, outside)

    async def asset(self, text: str, asked: RequestOfVersion, asset_id: str) -> InputAsset:
        """Return an asset of the request's caller with a new URL."""
        found = await self._find(text, asked)
        known = parse_uuid(asset_id.encode())
        if known is None:
            raise NotFound("The asset is not found")
        return await self._api.assets.input_asset(found.account, known, self._worker_url)

    async def _find(self, text: str, asked: RequestOfVersion) -> QueuedRequest:
        self._tokens.check_for(text, asked.function_id, asked.version_id)
        request_id = parse_uuid(asked.request_id.encode())
        found = None if request_id is None else await self._api.requests.find(request_id)
        if found is None or request_id != asked.request_id or found.version_id != asked.version_id:
            raise NotFound("The version has no such request now")
        return found
