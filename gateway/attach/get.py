"""GET attach: a worker fetches the rest of a request body (`spec/invocation.md` §5)."""

from gateway.invocation.machine import Invocation


class AttachGet:
    """One GET, whose response the invocation writes. A `http1.stream.RequestStream`."""

    __slots__ = ("_invocation",)

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def request_data(self, data: bytes) -> None:
        """A GET attach has no body; one that comes is dropped."""

    def first_part_end(self) -> None:
        """As `body`."""

    def request_end(self) -> None:
        """The request is complete; the response began with its head."""

    def request_broken(self) -> None:
        """The worker needs no more of the body, or died; a death shows elsewhere."""
        self._invocation.rest_broken()

    def pause_writing(self) -> None:
        """The worker reads slower than the client writes."""
        self._invocation.rest_pause_writing()

    def resume_writing(self) -> None:
        """The worker has caught up."""
        self._invocation.rest_resume_writing()
