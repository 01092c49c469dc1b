"""NVCF's assets: files of an account that calls can name as input (`docs/wire.md` §27).

An asset is the object ``assets/{account}/{assetId}``; there is no other record of it. It exists
once it is uploaded, until its life time is over; the sweep may delete it a little later.
"""

import re
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import NamedTuple

from gateway.errors import BadRequest, NotFound
from gateway.objects.interface import ObjectInfo, ObjectStore

PREFIX = "assets/"
DESCRIPTION = "nvcf-asset-description"
"""Metadata name: clients send ``x-amz-meta-nvcf-asset-description`` with the upload."""
URL_S = 3600.0
"""For how long the URLs of one asset are valid."""
CALL_URL_S = 2 * 3600.0
"""The same for URLs in calls: longer than a call may wait and run."""

_is_plain = re.compile(r"[a-z0-9_-]{1,64}").fullmatch


class AssetLimits(NamedTuple):
    """Bounds of the assets: bytes of one, number and bytes of an account's, seconds of life."""

    max_bytes: int
    account_assets: int
    account_bytes: int
    lifetime_s: float


class Asset(NamedTuple):
    """One asset. ``created_at`` is when it was uploaded, in Unix seconds."""

    asset_id: str
    content_type: str
    description: str
    created_at: float
    size: int


class NewAsset(NamedTuple):
    """An asset that does not exist yet, and the URL to which it is to be PUT."""

    asset_id: str
    upload_url: str


class InputAsset(NamedTuple):
    """An asset as a worker gets it: field 6 of the envelope."""

    asset_id: str
    url: str
    content_type: str


class AssetQuotaExceeded(BadRequest):
    """The account has as many assets, or bytes of them, as it may have."""

    reason = "asset_quota"
    summary = "The account has too many assets; delete some"


class AssetNotFound(NotFound):
    """The account has no such asset, or it is not uploaded, or its life time is over."""

    reason = "asset_not_found"
    summary = "The asset is not found"


class Assets:
    """The assets of all accounts. Every method may raise `gateway.errors.StoreUnavailable`."""

    def __init__(
        self,
        store: ObjectStore,
        limits: AssetLimits,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """``clock`` returns Unix seconds, ``new_id`` a new UUID."""
        self._store = store
        self._limits = limits
        self._clock = clock
        self._new_id = new_id

    async def create(
        self, account: str, content_type: str, description: str, base_url: str = ""
    ) -> NewAsset:
        """Return the URL for a new asset. Raises `AssetQuotaExceeded`."""
        count, size = await self._used(folder_of(account))
        if count >= self._limits.account_assets or size >= self._limits.account_bytes:
            raise AssetQuotaExceeded
        asset_id = self._new_id()
        url = await self._store.upload_url(
            _key(account, asset_id),
            self._clock() + URL_S,
            content_type=content_type,
            max_bytes=self._limits.max_bytes,
            meta={DESCRIPTION: description},
            base_url=base_url,
        )
        return NewAsset(asset_id, url)

    async def ids(self, account: str, after: str = "") -> AsyncIterator[str]:
        """Iterate over the ids of the account's assets that follow ``after``, sorted."""
        folder = folder_of(account)
        async for info in self._store.list(folder, folder + after if after else ""):
            if self._lives(info):
                yield info.key.removeprefix(folder)

    async def get(self, account: str, asset_id: str) -> Asset:
        """Return an asset. Raises `AssetNotFound`."""
        info = await self._store.stat(_key(account, asset_id))
        if info is None or not self._lives(info):
            raise AssetNotFound
        description = info.meta.get(DESCRIPTION, "")
        return Asset(asset_id, info.content_type, description, info.modified_at, info.size)

    async def delete(self, account: str, asset_id: str) -> None:
        """Delete an asset. Raises `AssetNotFound`."""
        await self.get(account, asset_id)
        await self._store.delete(_key(account, asset_id))

    async def download_url(self, account: str, asset_id: str, base_url: str = "") -> str:
        """Return a URL of the asset's body. Raises `AssetNotFound`."""
        await self.get(account, asset_id)
        expires_at = self._clock() + URL_S
        return await self._store.download_url(
            _key(account, asset_id), expires_at, base_url=base_url
        )

    async def input_asset(self, account: str, asset_id: str, base_url: str) -> InputAsset:
        """Return an asset for a call. ``base_url`` is an address that the worker reaches.

        Raises `AssetNotFound`, and `BadRequest` for one that is larger than an asset may be, which
        S3 does not prevent.
        """
        asset = await self.get(account, asset_id)
        if asset.size > self._limits.max_bytes:
            raise BadRequest(f"An asset has more than {self._limits.max_bytes} bytes")
        expires_at = self._clock() + CALL_URL_S
        url = await self._store.download_url(_key(account, asset_id), expires_at, base_url=base_url)
        return InputAsset(asset_id, url, asset.content_type)

    async def room(self, key: str) -> int | None:
        """Return how many bytes the object ``key`` may have now; `None` if it is no asset.

        Raises `AssetQuotaExceeded`. Uploads at the same time do not see each other: each checks
        again when it is complete.
        """
        if not key.startswith(PREFIX):
            return None
        count, size = await self._used(key.rpartition("/")[0] + "/", but=key)
        if count >= self._limits.account_assets or size >= self._limits.account_bytes:
            raise AssetQuotaExceeded
        return min(self._limits.max_bytes, self._limits.account_bytes - size)

    async def _used(self, folder: str, but: str = "") -> tuple[int, int]:
        """Return number and bytes of an account's assets; stops at the greatest number."""
        count = size = 0
        async for info in self._store.list(folder):
            if info.key != but and self._lives(info):
                count += 1
                size += info.size
                if count >= self._limits.account_assets:
                    break
        return count, size

    def _lives(self, info: ObjectInfo) -> bool:
        return self._clock() < info.modified_at + self._limits.lifetime_s


def folder_of(account: str) -> str:
    """Return the prefix of an account's assets, which is no prefix of another account's."""
    return account_folder(PREFIX, account)


def account_folder(prefix: str, account: str) -> str:
    """Return the prefix of what an account has below ``prefix``.

    A name with other characters than ``[a-z0-9_-]``, or a long one, is replaced by its digest: in
    capital letters it would be another one's on some file systems.
    """
    part = account if _is_plain(account) else f"={sha256(account.encode()).hexdigest()}"
    return f"{prefix}{part}/"


def _key(account: str, asset_id: str) -> str:
    return folder_of(account) + asset_id
