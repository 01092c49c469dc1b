"""Heartbeats of workers that change nothing, served without the REST API's application.

There may be thousands of workers. What the application would respond is known without it when the
token is valid and the record is as the worker says; everything else goes to the application, as it
came.
"""

import os
from collections.abc import Callable

from gateway.dispatch.responses import with_ids
from gateway.routing.cross_origin import PageAccess
from http1.held_request import HeldRequest
from http1.stream import Headers, Request, RequestStream, ResponseWriter, respond
from wire.headers import CONTENT_TYPE
from wire.ids import uuid4_text
from wire.worker_api import HEARTBEAT_PATH

_PATH = HEARTBEAT_PATH.encode()
_MAX_BYTES = 1024
_JSON = b"application/json"

TakeHeartbeat = Callable[[bytes | None, bytes], bytes | None]
"""Takes a heartbeat, its ``Authorization`` and its body; returns the body of the response, `None`
for one that the application must serve."""


def is_heartbeat(request: Request) -> bool:
    """Whether a request may be a heartbeat of a worker, and small."""
    return (
        request.target == _PATH
        and request.method == b"POST"
        and request.body_bytes is not None
        and request.body_bytes <= _MAX_BYTES
        and request.values.get(CONTENT_TYPE) == _JSON
        and b"content-encoding" not in request.values
    )


class HeartbeatCall(HeldRequest):
    """One heartbeat: its body is held, then responded to or passed on."""

    __slots__ = ("_access", "_body", "_client", "_otherwise", "_request", "_responded", "_take")

    def __init__(
        self,
        request: Request,
        client: ResponseWriter,
        access: PageAccess,
        take: TakeHeartbeat,
        otherwise: Callable[[], RequestStream],
        responded: Callable[[Request, int, str], None],
    ) -> None:
        """``otherwise`` begins the call of the application."""
        super().__init__(_nothing)
        self._request = request
        self._client = client
        self._access = access
        self._take = take
        self._otherwise = otherwise
        self._responded = responded
        self._body = b""

    def _hold(self, data: bytes) -> None:
        self._body += data

    def _completed(self) -> None:
        request = self._request
        response = self._take(request.values.get(b"authorization"), self._body)
        if response is None:
            self._pass_on(self._otherwise(), (self._body,))
            return
        request_id = uuid4_text(os.urandom(16))
        headers: Headers = with_ids([(CONTENT_TYPE, _JSON)], request_id)
        self._give_up()
        respond(request, self._client, 200, self._access.of_forwarded(200, headers), response)
        self._responded(request, 200, request_id)

    def _drop(self) -> object:
        self._body = b""
        return None


def _nothing() -> None:
    """Nothing follows from a worker that leaves."""
