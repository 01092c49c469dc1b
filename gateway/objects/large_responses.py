"""Responses that are too large to be passed on: a worker puts them here, the client gets a URL.

The response of a request is the object ``large/{account}/{requestId}``, of the caller's account: a
zip file (`docs/wire.md` §5.6).
"""

from collections.abc import Callable

from gateway.objects.assets import account_folder
from gateway.objects.interface import ObjectStore

PREFIX = "large/"
_ARCHIVE = "application/zip"
_UPLOAD_S = 3600.0


class LargeResponseObjects:
    """Makes the URLs. Both methods may raise `gateway.errors.StoreUnavailable`.

    An object may have ``max_bytes`` (0: any number), and clients may read it for ``lifetime_s``.
    ``clock`` returns Unix seconds.
    """

    def __init__(
        self, store: ObjectStore, *, max_bytes: int, lifetime_s: float, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes or 1 << 62
        self._lifetime_s = lifetime_s
        self._clock = clock

    async def upload_url(self, account: str, request_id: str, base_url: str) -> str:
        """Return where a worker puts the response; it reaches a process at ``base_url``."""
        return await self._store.upload_url(
            account_folder(PREFIX, account) + request_id,
            self._clock() + _UPLOAD_S,
            content_type=_ARCHIVE,
            max_bytes=self._max_bytes,
            base_url=base_url,
        )

    async def download_url(self, account: str, request_id: str, base_url: str) -> str:
        """Return where a client gets the response; it reaches the gateway at ``base_url``."""
        return await self._store.download_url(
            account_folder(PREFIX, account) + request_id,
            self._clock() + self._lifetime_s,
            base_url=base_url,
            file_name=f"{request_id}.zip",
        )
