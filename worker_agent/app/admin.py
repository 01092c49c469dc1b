"""The agent's endpoint for the platform: liveness, readiness and metrics."""

import json
from collections.abc import Callable

from http1.server.limits import ServerLimits
from http1.server.listener import Listener, bind_sockets, listen
from http1.stream import Request, RequestStream, ResponseWriter, respond
from runtime.metrics import CONTENT_TYPE as METRICS_TYPE
from runtime.metrics import MetricRegistry
from runtime.settings import Address
from wire.headers import CONTENT_TYPE

MAX_CONNECTIONS = 256
_SERVER_NAME = b"worker-agent"
_TEXT = b"text/plain"

Page = tuple[int, bytes, bytes]
"""Status, content type and body."""


class Admin:
    """Serves ``/health/live``, ``/health/ready`` (also under ``/v1``, as NVCF) and ``/metrics``.

    ``failures`` returns what keeps the agent from taking work, by component; empty when ready.
    ``port`` is the TCP port in use, 0 before `listen` and on a Unix socket.
    """

    def __init__(self, registry: MetricRegistry, failures: Callable[[], dict[str, str]]) -> None:
        self._registry = registry
        self._failures = failures
        self._listener: Listener | None = None
        self.port = 0

    async def listen(self, address: Address) -> None:
        """Serve on ``address``. Raises `http1.server.listener.ListenError`."""
        sockets = bind_sockets([address])
        if not address.is_unix:
            self.port = sockets[0].getsockname()[1]
        limits = ServerLimits(max_connections=MAX_CONNECTIONS)
        self._listener = await listen(sockets, self.serve, limits, _SERVER_NAME)

    def close(self) -> None:
        """Stop serving; open connections are reset."""
        if self._listener is not None:
            self._listener.abort_all()

    def serve(self, request: Request, writer: ResponseWriter) -> RequestStream:
        """Serve one request: an `http1.stream.Dispatch`."""
        status, content_type, body = self._page(request)
        return respond(request, writer, status, [(CONTENT_TYPE, content_type)], body)

    def _page(self, request: Request) -> Page:
        if request.method not in (b"GET", b"HEAD"):
            return 405, _TEXT, b"GET only\n"
        match request.target.partition(b"?")[0].removeprefix(b"/v1"):
            case b"/health/live":
                return 200, _TEXT, b"OK\n"
            case b"/health/ready":
                return self._readiness()
            case b"/metrics":
                return 200, METRICS_TYPE, self._registry.exposition()
            case _:
                return 404, _TEXT, b"no such page\n"

    def _readiness(self) -> Page:
        failures = self._failures()
        document: dict[str, object] = {"status": "Unavailable" if failures else "OK"}
        if failures:
            document["failures"] = failures
        return 503 if failures else 200, b"application/json", json.dumps(document).encode()
