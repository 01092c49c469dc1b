"""The ports that a job calls, and the state that all jobs share.

`Attach` and `Context` are generic in the job's type, so that this module needs no import of the
machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from http1.stream import Headers, RequestWriter, ResponseStream
from queueing.interface import RunDecision
from wire.decoded_envelope import Envelope
from worker_agent.job.request import Outgoing, PlatformHeaders
from worker_agent.job.window import StartGate

AJob = TypeVar("AJob")
AJob_contra = TypeVar("AJob_contra", contravariant=True)


class InferenceCallbacks(ResponseStream, Protocol):
    """Reports the progress of one request to the inference server."""

    def may_send(self, now: float) -> bool:
        """Return whether the request is still to be sent at ``now``, loop time in seconds."""

    def sent(self, writer: RequestWriter, now: float) -> None:
        """The head and the first part of the body were written at ``now``, loop time in seconds."""

    def unreachable(self) -> None:
        """No connection to the inference server could be opened: it has seen nothing of it."""

    def discarded(self) -> None:
        """The inference server is done with a request that was left, or its time is over."""


class Inference(Protocol):
    """The local inference server."""

    def open(self, request: Outgoing, callbacks: InferenceCallbacks, *, is_fresh: bool) -> None:
        """Send ``request`` on an idle connection at once, or on a new one soon.

        Ends in one call of ``sent`` or ``unreachable``, or in none if the job stops waiting
        before a connection is open. ``is_fresh``: use no connection that has been idle.
        """

    def broke(self) -> None:
        """A connection ended before a response head: the inference server may be dead."""

    def discard(self, writer: RequestWriter, callbacks: InferenceCallbacks) -> None:
        """Tell the inference server that nobody waits, and wait until it is done with the request.

        Ends in one call of ``discarded``.
        """


class Post(Protocol):
    """A response on its way to the gateway."""

    def send_data(self, data: bytes) -> None:
        """Send the next bytes of the body."""

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Send the next ``size`` bytes of the body, which are one chunk."""

    def send_end(self, trailers: Headers) -> None:
        """The response is complete; ``trailers`` are what may be passed on of its trailers."""

    def abort(self) -> None:
        """End the POST so that the gateway sees an incomplete response."""


class Rest(Protocol):
    """The rest of a request body on its way from the gateway."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Stop: no further bytes are needed."""


class Delivery(Protocol):
    """A whole response on its way to the gateway process that ``envelope`` names.

    Its attributes are those of `worker_agent.job.machine.Job`.
    """

    envelope: Envelope
    request_id: str
    leased_at: float
    response: bytes
    trailers: bytes
    fault: bytes
    status: int

    def posted(self) -> None: ...
    def post_answered(self, status: int) -> None: ...
    def post_broken(self, *, is_unread: bool = False) -> None: ...
    def post_pause_writing(self) -> None: ...
    def post_resume_writing(self) -> None: ...


class Attach(Protocol[AJob_contra]):
    """The gateway processes that hold the clients."""

    def deliver(self, job: Delivery) -> None:
        """POST a whole response, a job's usually.

        Ends in its ``post_answered`` or ``post_broken``.
        """

    def stream(self, job: AJob_contra, head: bytes, total_bytes: int | None) -> Post:
        """POST a response that begins with ``head``.

        ``total_bytes`` is the length of head and body, ``None`` if it is not known. The job's
        ``posted`` is called when the head has been written, here or later; ``post_answered`` or
        ``post_broken`` can follow at any time.
        """

    def fetch(self, job: AJob_contra) -> Rest:
        """GET the rest of the body: the job's ``rest_data``, ``rest_end`` and ``rest_broken``."""

    async def may_run(
        self, envelope: Envelope, deliveries: int, *, is_running: bool
    ) -> RunDecision | None:
        """Ask the gateway whether to run a request, or to go on with it, if ``is_running``.

        ``None``: it does not respond, or cannot just now.
        """

    async def dropped_late(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway that a request was not started, because it would be late."""

    async def gave_back(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway that a request that is run once was not begun, after its permission."""

    async def broke_off(self, envelope: Envelope, deliveries: int) -> None:
        """Tell the gateway that the inference server broke off a request, which was given back."""


class JobRegistry(Protocol[AJob_contra]):
    """The jobs of the agent, by request id."""

    def bounded(self, request_id: str, ends_at: float) -> None:
        """Call the job's ``run_ended`` at ``ends_at``, loop time in seconds."""

    def uploaded(self, request_id: str) -> None:
        """The body of a job, which was fetched from the gateway, is passed on."""

    def responding(self, request_id: str) -> None:
        """The response head of a job has come before its body."""

    def freed(self, job: AJob_contra) -> None:
        """The inference server is done with the job: its slot is free.

        Called exactly once, before or after ``finished``.
        """

    def finished(self, request_id: str) -> None:
        """The job is over; its outcome is set, its lease ended. Called exactly once."""


@dataclass(frozen=True, slots=True)
class Context(Generic[AJob]):
    """What all jobs of one agent share; made once at start."""

    inference: Inference
    attach: Attach[AJob]
    registry: JobRegistry[AJob]
    platform_headers: PlatformHeaders
    gate: StartGate
    special: "Callable[[AJob, Outgoing], Context[AJob]] | None" = None
    """Returns the ports of a job whose mode is not `worker_agent.job.modes.Mode.FINAL`."""
