"""Calls with an Idempotency-Key in the process that holds them, and calls that repeat one. Pure."""

from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.invocation.once import OnceInvocation
from gateway.requests.detached import DetachedCall
from gateway.requests.idempotency import Fingerprint
from gateway.requests.key_claims import ClaimPosition
from http1.stream import NullRequestStream


class KeyedCall:
    """A call that has claimed its key, or is about to.

    ``fingerprint`` is empty until its request is complete. ``call`` is ``None`` until it has begun;
    ``refusal`` is set if it never will.
    """

    __slots__ = (
        "_body",
        "_invocation",
        "_waiting",
        "call",
        "fingerprint",
        "position",
        "refusal",
        "request_id",
    )

    def __init__(self, request_id: str, position: ClaimPosition, body: Fingerprint) -> None:
        """``body`` is the fingerprint of the request, which takes its body from now on."""
        self.request_id = request_id
        self.position = position
        self.fingerprint = ""
        self.call: DetachedCall | None = None
        self.refusal: GatewayError | None = None
        self._body = body
        self._invocation: OnceInvocation | None = None
        self._waiting: list[Callable[[], None]] = []

    @property
    def may_have_run(self) -> bool:
        """Whether a worker may have run the call (`OnceInvocation.may_have_run`)."""
        return self._invocation is not None and self._invocation.may_have_run

    def begun(self, call: DetachedCall, invocation: OnceInvocation) -> None:
        """The call is an invocation now."""
        self.call, self._invocation = call, invocation

    def refused(self, error: GatewayError) -> None:
        """It never will be one."""
        self.refusal = error
        self._wake()

    def add(self, data: bytes) -> None:
        """The next bytes of the request's body arrived."""
        self._body.add(data)

    def complete(self) -> None:
        """The request is complete."""
        self.fingerprint = self._body.digest()
        self._wake()

    def over(self) -> None:
        """The call is over, perhaps before its request was complete."""
        self._wake()

    def when_known(self, then: Callable[[], None]) -> None:
        """Call ``then`` when it is known what its request is, or that it never will be."""
        is_over = self.call is not None and self.call.is_over
        if self.fingerprint or self.refusal is not None or is_over:
            then()
        else:
            self._waiting.append(then)

    def forget(self, then: Callable[[], None]) -> None:
        """Do not call it."""
        if then in self._waiting:
            self._waiting.remove(then)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()


class RepeatedRequest(NullRequestStream):
    """The request of a call whose key has been claimed: it is read to its end, and not kept.

    Then ``complete`` is called with its fingerprint, and what it returns gets the events that are
    still to come; ``left`` is called if the client leaves before.
    """

    __slots__ = ("_body", "_complete", "_left")

    def __init__(
        self, body: Fingerprint, complete: Callable[[str], None], left: Callable[[], None]
    ) -> None:
        self._body = body
        self._complete = complete
        self._left = left

    def request_data(self, data: bytes) -> None:
        """Take the next bytes into account."""
        self._body.add(data)

    def request_end(self) -> None:
        """The request is complete."""
        self._complete(self._body.digest())

    def request_broken(self) -> None:
        """The client left."""
        self._left()
