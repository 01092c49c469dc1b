"""GET attach: a worker fetches the rest of a request body (`spec/invocation.md` §5)."""

from gateway.invocation.machine import Invocation
from http1.stream import NullRequestStream


class AttachGet(NullRequestStream):
    """One GET, whose response the invocation writes. A `http1.stream.RequestStream`."""

    __slots__ = ("_invocation",)

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def request_broken(self) -> None:
        """The worker needs no more of the body, or died; a death shows elsewhere."""
        self._invocation.rest_broken()

    def pause_writing(self) -> None:
        """The worker reads slower than the client writes."""
        self._invocation.rest_pause_writing()

    def resume_writing(self) -> None:
        """The worker has caught up."""
        self._invocation.rest_resume_writing()
