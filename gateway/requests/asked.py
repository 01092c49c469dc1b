"""A request for a detached call, once it is authenticated."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.errors import GatewayError, problem_for
from gateway.routing.cross_origin import PageAccess
from http1.stream import Headers, Request, ResponseWriter, respond
from wire.problem import id_headers, instance_of

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream"

MaySee = Callable[[str, str, str, str], bool]
"""Whether the credential covers a call: of this account, of a function of this owner, and of these
ids of function and version."""


class Asked(NamedTuple):
    """Who asks what.

    ``part`` is the rest of the path after the request id. ``window_s`` is how long the client waits
    for a response head, ``last_event`` its ``Last-Event-ID``, empty for none. ``counted`` is to be
    called with the status of the response.
    """

    request: Request
    request_id: str
    part: bytes
    access: PageAccess
    window_s: int
    last_event: bytes
    may_see: MaySee
    counted: Callable[[Request, int], None]

    def refuse(self, client: ResponseWriter, error: GatewayError) -> None:
        """Send the response to ``error``."""
        status, headers, body = problem_for(
            error, instance_of(self.request.target), self.request_id, id_header=False
        )
        self.send(client, status, headers, body)

    def send(self, client: ResponseWriter, status: int, headers: Headers, body: bytes) -> None:
        """Send a response of the gateway's own."""
        self.counted(self.request, status)
        headers = self.access.of_own_response([*headers, *id_headers(self.request_id)])
        respond(self.request, client, status, headers, body)
