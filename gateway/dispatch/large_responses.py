"""Where a worker puts a response that is too large to be passed on (`docs/wire.md` §5.6).

The worker gets two signed URLs of the object store: one to put the response, one for the client.
"""

import orjson

from gateway.dispatch.responses import send_problem
from gateway.errors import GatewayError
from gateway.invocation.machine import Invocation
from gateway.objects.large_responses import LargeResponseObjects
from http1.stream import NullRequestStream, Request, RequestStream, ResponseWriter, respond
from runtime.tasks import spawn
from wire.headers import CONTENT_TYPE
from wire.worker_api import LargeResponseUrls


class LargeResponses:
    """Gives out the URLs."""

    def __init__(self, objects: LargeResponseObjects) -> None:
        self._objects = objects

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
        request_id = invocation.request_id
        upload = await self._objects.upload_url(invocation.account, request_id, base_url)
        outside = invocation.source.url.decode("latin-1")
        download = await self._objects.download_url(invocation.account, request_id, outside)
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
