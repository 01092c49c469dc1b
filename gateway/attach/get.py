"""GET attach: a worker fetches the rest of a request body (`spec/invocation.md` §5)."""

from gateway.invocation.machine import Invocation


class AttachGet:
    """One GET, whose response the invocation writes. A `http1.stream.Receiver`."""

    __slots__ = ("_invocation",)

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def body(self, data: bytes) -> None:
        """A GET attach has no body; one that comes is dropped."""

    def arrived(self) -> None:
        """As `body`."""

    def body_end(self) -> None:
        """The request is complete; the response began with its head."""

    def gone(self) -> None:
        """The worker needs no more of the body, or died; a death shows elsewhere."""
        self._invocation.rest_gone()

    def congested(self) -> None:
        """The worker reads slower than the client writes."""
        self._invocation.rest_congested()

    def relieved(self) -> None:
        """The worker has caught up."""
        self._invocation.rest_relieved()
