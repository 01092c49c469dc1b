"""What an invocation is given: the ports it acts on, and what it shares with the others.

The client's side is `http1.stream.ResponseWriter`, the queue's `queueing.interface.FunctionQueue`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.invocation.collection import UploadSpace
from http1.stream import ResponseWriter
from queueing.interface import FunctionQueue


class WorkerPost(Protocol):
    """The POST attach through which one worker delivers one response."""

    def pause_reading(self) -> None:
        """Stop reading the response: the client is slow."""

    def resume_reading(self) -> None:
        """Read the response again: the client has caught up."""

    def release(self) -> None:
        """Respond 200: the client has the whole response, or needs no more of it.

        A worker that is still sending sees the early response and stops.
        """

    def refuse(self, status: int, detail: str) -> None:
        """Respond with a problem: what the worker sent is not a valid response."""


class WorkerGet(Protocol):
    """The GET attach through which one worker fetches the rest of a request body."""

    def accept(self, rest_bytes: int | None) -> ResponseWriter:
        """Send the response head and return the writer for the body.

        ``rest_bytes`` is the length of the rest, ``None`` when it is not known.
        """


class LiveInvocations(Protocol):
    """The live invocations of the process, by request id."""

    def issue_request_token(self, request_id: str) -> str:
        """Return a new token with which workers may fetch the rest of the request body."""

    def renew_response_token(self, request_id: str) -> None:
        """Accept the response token once more: the POST that used it broke before its head."""

    def expired(self, request_id: str) -> None:
        """Withdraw the request, accept no worker for it, and report `position_known` soon."""

    def finished(self, request_id: str) -> None:
        """The invocation is over; its outcome and times are set. Called exactly once."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all invocations of one gateway process share; made once at start."""

    queue: FunctionQueue
    registry: LiveInvocations
    region: bytes
    attach_uri: bytes
    """This process's own attach address, scheme and authority (`docs/wire.md` §3.3)."""
    process: int
    """This process's number, which its request ids carry (`wire.ids`)."""
    uploads: UploadSpace
    max_body_bytes: int
    """Maximum bytes of a request body; 0 is none. A function may have a smaller one."""
    clock: Callable[[], float]
    """The monotonic clock, in seconds."""


class Ticket(NamedTuple):
    """What the dispatcher assigns to a new invocation.

    ``response_token`` lets a worker deliver the response. ``requested_at_ns`` is Unix time in
    nanoseconds, from which the worker computes how much of the poll window is left.
    """

    request_id: str
    response_token: str
    requested_at_ns: int
