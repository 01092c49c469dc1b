"""The agent's endpoint for the platform: liveness, readiness, metrics, and the request to drain."""

import json
from collections.abc import Callable
from hmac import compare_digest

from http1.server.limits import ServerLimits
from http1.server.listener import Listener, bind_sockets, listen
from http1.stream import NullRequestStream, Request, RequestStream, ResponseWriter, respond
from runtime.metrics import CONTENT_TYPE as METRICS_TYPE
from runtime.metrics import MetricRegistry
from runtime.settings import Address
from wire.headers import AUTHORIZATION, CONTENT_TYPE

MAX_CONNECTIONS = 256
_SERVER_NAME = b"worker-agent"
_TEXT = b"text/plain"

Page = tuple[int, bytes, bytes]
"""Status, content type and body."""


class _WaitingForDrain(NullRequestStream):
    """A request that gets its response when the agent has drained."""

    __slots__ = ("_leave",)

    def __init__(self, leave: Callable[[], object]) -> None:
        self._leave = leave

    def request_broken(self) -> None:
        """The peer has left."""
        self._leave()


class Admin:
    """Serves ``/health/live``, ``/health/ready`` (also under ``/v1``, as NVCF) and ``/metrics``.

    ``failures`` returns what keeps the agent from taking work, by component; empty when ready.
    With ``drain_token`` it serves ``/drain`` too, which calls ``on_drain`` of `listen`.
    ``port`` is the TCP port in use, 0 before `listen` and on a Unix socket.
    """

    def __init__(
        self,
        registry: MetricRegistry,
        failures: Callable[[], dict[str, str]],
        drain_token: str = "",
    ) -> None:
        self._registry = registry
        self._failures = failures
        self._drain_token = drain_token.encode()
        self._on_drain: Callable[[], None] | None = None
        self._waiting: dict[int, tuple[Request, ResponseWriter]] = {}
        self._listener: Listener | None = None
        self.port = 0

    async def listen(self, address: Address, on_drain: Callable[[], None] | None = None) -> None:
        """Serve on ``address``. Raises `http1.server.listener.ListenError`."""
        self._on_drain = on_drain
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
        if request.target == b"/drain" and self._drain_token and self._on_drain is not None:
            return self._drain(request, writer, self._on_drain)
        status, content_type, body = self._page(request)
        return respond(request, writer, status, [(CONTENT_TYPE, content_type)], body)

    def respond_to_drains(self) -> None:
        """Respond to the requests to drain: the agent has drained."""
        for request, writer in self._waiting.values():
            respond(request, writer, 200, [(CONTENT_TYPE, _TEXT)], b"drained\n")
        self._waiting.clear()

    def _drain(
        self, request: Request, writer: ResponseWriter, on_drain: Callable[[], None]
    ) -> RequestStream:
        given = request.values.get(AUTHORIZATION, b"")
        if not compare_digest(given, b"Bearer " + self._drain_token):
            return respond(request, writer, 403, [(CONTENT_TYPE, _TEXT)], b"another token\n")
        self._waiting[id(request)] = (request, writer)
        on_drain()
        return _WaitingForDrain(lambda: self._waiting.pop(id(request), None))

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
