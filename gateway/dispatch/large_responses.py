"""Where a worker puts a response that is too large to be passed on (`docs/wire.md` §5.6).

The worker gets two signed URLs of the object store: one to put the response, one for the client.
"""

from collections.abc import Callable

import orjson

from gateway.dispatch.responses import send_problem
from gateway.errors import GatewayError
from gateway.invocation.machine import Invocation
from gateway.objects.assets import account_folder
from gateway.objects.interface import ObjectStore
from http1.stream import NullRequestStream, Request, RequestStream, ResponseWriter, respond
from runtime.tasks import spawn
from wire.headers import CONTENT_TYPE
from wire.worker_api import LargeResponseUrls

PREFIX = "large/"
"""Prefix of the keys of large responses: ``large/{account}/{requestId}``, the caller's account."""
_ARCHIVE = "application/zip"
_UPLOAD_S = 3600.0


class LargeResponses:
    """Gives out the URLs.

    An object may have ``max_bytes`` (0: any number), and its URL is valid for ``lifetime_s``.
    ``clock`` returns Unix seconds.
    """

    def __init__(
        self, store: ObjectStore, *, max_bytes: int, lifetime_s: float, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes or 1 << 62
        self._lifetime_s = lifetime_s
        self._clock = clock

    def serve(
        self, request: Request, worker: ResponseWriter, invocation: Invocation
    ) -> RequestStream:
        """Respond with the URLs for the response of ``invocation``."""
        exchange = _Asking()
        spawn(self._serve(request, worker, invocation, exchange), "large-response.urls")
        return exchange

    async def urls_for(self, invocation: Invocation, base_url: str) -> LargeResponseUrls:
        """Return the URLs; the worker reaches this process at ``base_url``.

        Raises `StoreUnavailable`.
        """
        key = account_folder(PREFIX, invocation.account) + invocation.request_id
        now = self._clock()
        upload = await self._store.upload_url(
            key,
            now + _UPLOAD_S,
            content_type=_ARCHIVE,
            max_bytes=self._max_bytes,
            base_url=base_url,
        )
        download = await self._store.download_url(
            key,
            now + self._lifetime_s,
            base_url=invocation.source.url.decode("latin-1"),
            file_name=f"{invocation.request_id}.zip",
        )
        return {"uploadUrl": upload, "downloadUrl": download}

    async def _serve(
        self, request: Request, worker: ResponseWriter, invocation: Invocation, exchange: "_Asking"
    ) -> None:
        scheme, host = request.peer.scheme.decode(), request.host.decode("latin-1")
        try:
            urls = await self.urls_for(invocation, f"{scheme}://{host}")
        except GatewayError as error:
            if not exchange.is_over:
                send_problem(request, worker, error)
            return
        if not exchange.is_over:
            headers = [(CONTENT_TYPE, b"application/json")]
            respond(request, worker, 200, headers, orjson.dumps(urls))


class _Asking(NullRequestStream):
    """A worker that asks; ``is_over`` if it has gone."""

    def __init__(self) -> None:
        self.is_over = False

    def request_broken(self) -> None:
        """It does not wait any more."""
        self.is_over = True
