"""What an invocation is given: the ports it acts on, and what it shares with the others.

The client's side is `http1.stream.ResponseWriter`, the queue's `queueing.interface.FunctionQueue`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.invocation.bounds import PhaseBounds
from gateway.invocation.collection import UploadSpace
from http1.stream import ResponseWriter
from queueing.interface import FunctionQueue
from wire.deadlines import MAX_INVOCATION_S


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
    """The GET attach through which one worker fetches the rest of a request body.

    ``is_upgraded``: it is for the client's bytes of a WebSocket, to which its server has agreed.
    """

    is_upgraded: bool

    def accept(self, rest_bytes: int | None) -> ResponseWriter:
        """Send the response head and return the writer for the body.

        ``rest_bytes`` is the length of the rest, ``None`` when it is not known.
        """


class CallChannel(Protocol):
    """A worker's channel to this process.

    ``sent`` counts the calls that were sent on it, ``instance`` is the id of the worker's instance.
    """

    sent: int
    instance: bytes

    def cancel(self, number: int) -> None:
        """Tell the worker that nobody waits for a call, and forget it."""

    def forget(self, number: int) -> None:
        """The call is over for the channel: its response comes in another way, or has come."""


ACall_contra = TypeVar("ACall_contra", contravariant=True)


class DirectDispatch(Protocol[ACall_contra]):
    """The channels of this process's workers."""

    def has_free(self, version_id: str, capacity: int) -> bool:
        """Return whether a call is to be sent to a worker that has told of a free slot.

        ``capacity`` is the version's: `gateway.domain.model.FunctionVersion`.
        """

    def send(
        self,
        call: ACall_contra,
        version_id: str,
        requested_at_ns: int,
        head: bytes,
        body: bytes,
        *,
        has_rest: bool,
    ) -> CallChannel | None:
        """Send a call to a worker with a free slot; its number is `CallChannel.sent` then.

        ``None``: there is none, or the call is too large. The arguments are those of
        `wire.channel.encode_call`.
        """

    def token(self, request_id: str, version_id: str) -> str:
        """Return what lets the worker that leases the request open a channel; may be empty."""


class LiveInvocations(Protocol):
    """The live invocations of the process, by request id."""

    def issue_response_token(self, request_id: str) -> str:
        """Return a new token with which a worker may deliver the response."""

    def issue_request_token(self, request_id: str) -> str:
        """Return a new token with which workers may fetch the rest of the request body."""

    def issue_poll_token(self, request_id: str) -> str:
        """Return a new token for the worker that is asked for the response to a polled call."""

    def poll_worker(self, request_id: str, number: int, envelope: bytes) -> None:
        """Ask the worker that has the request for its response, by ``envelope``.

        If none takes it, `poll_failed` is called with ``number``, never before this returns.
        """

    def renew_response_token(self, request_id: str) -> None:
        """Accept the response token once more: the POST that used it broke before its head."""

    def moved_earlier(self, request_id: str) -> None:
        """The invocation's deadline is earlier than it was."""

    def bounded(self, bounds: PhaseBounds) -> None:
        """``bounds.ends_at`` has moved: call the invocation's ``bound_passed`` then."""

    def wait_over(self, request_id: str) -> None:
        """Find out whether a worker has a queued call, and report `lease_known` soon."""

    def expired(self, request_id: str) -> None:
        """Withdraw the request, accept no worker for it, and report `position_known` soon."""

    def finished(self, request_id: str) -> None:
        """The invocation is over; its outcome and times are set. Called exactly once."""


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """How long a WebSocket may be open, in seconds from the request, and without a byte; 0: none"""

    max_s: float = MAX_INVOCATION_S
    idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Context(Generic[ACall_contra]):
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
    channels: DirectDispatch[ACall_contra] | None = None
    """``None``: every call goes through the queue."""
    websockets: WebSocketLimits = WebSocketLimits()


class Ticket(NamedTuple):
    """What the dispatcher assigns to a new invocation.

    ``requested_at_ns`` is Unix time in nanoseconds, from which the worker computes how much of the
    poll window is left.
    """

    request_id: str
    requested_at_ns: int
