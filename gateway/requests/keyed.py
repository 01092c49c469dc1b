"""Calls with an Idempotency-Key in the process that holds them, and those that repeat one. Pure."""

from collections.abc import Callable

from gateway.errors import (
    BodyTooLarge,
    Conflict,
    GatewayError,
    KeyReused,
    OutcomeUnknown,
    PollTimeout,
)
from gateway.invocation.once import OnceInvocation
from gateway.requests.detached import DetachedCall
from gateway.requests.exchanges import ACCEPTED, FirstExchange, ResponseExchange, Windows
from gateway.requests.idempotency import ClaimPosition, Decision, Fingerprint, Found, decide
from gateway.requests.prefer import Terms
from gateway.requests.recording import Recording
from gateway.requests.repetition import Repetition
from http1.stream import Headers, NullRequestStream, RequestStream, ResponseWriter
from wire.headers import ACCESS_CONTROL_EXPOSE_HEADERS, IDEMPOTENT_REPLAYED
from wire.http1 import encode_lines

REPLAYED: Headers = [
    (IDEMPOTENT_REPLAYED, b"true"),
    (ACCESS_CONTROL_EXPOSE_HEADERS, IDEMPOTENT_REPLAYED),
]
"""What the response of an earlier call has beside its own headers: no other one pays for it."""
FINGERPRINT = "fingerprint"
"""What is stored with a response beside itself: a member of `DetachedCall.extra`."""
_STILL_RUNS = "the first call with this Idempotency-Key waits or runs still"
_INCOMPLETE = "the first request with this Idempotency-Key is not complete yet"
DID_NOT_RUN = "The first call with this Idempotency-Key did not run; send this one again"


class KeyedCall:
    """A call that has claimed its key, or is about to.

    ``fingerprint`` is empty until its request is complete. ``call`` is ``None`` until it has begun;
    ``is_refused``: it never will. ``is_free``: nothing ran, and its key is another call's, or soon.
    """

    __slots__ = (
        "_body",
        "_invocation",
        "_waiting",
        "call",
        "fingerprint",
        "is_free",
        "is_refused",
        "position",
        "request_id",
    )

    def __init__(self, request_id: str, position: ClaimPosition, body: Fingerprint) -> None:
        """``body`` is the fingerprint of the request, which takes its body from now on."""
        self.request_id = request_id
        self.position = position
        self.fingerprint = ""
        self.call: DetachedCall | None = None
        self.is_refused = self.is_free = False
        self._body: Fingerprint | None = body
        self._invocation: OnceInvocation | None = None
        self._waiting: list[Callable[[], None]] = []

    def begun(self, call: DetachedCall, invocation: OnceInvocation) -> None:
        """The call is an invocation now."""
        self.call, self._invocation = call, invocation

    def refused(self) -> None:
        """It never will be one."""
        self.is_refused = self.is_free = True
        self._wake()

    def add(self, data: bytes) -> None:
        """The next bytes of the request's body arrived."""
        if self._body is not None:
            self._body.add(data)

    def complete(self) -> None:
        """The request is complete."""
        body, self._body = self._body, None
        if body is not None:
            self.fingerprint = body.digest()
            if self.call is not None:
                self.call.extra = {FINGERPRINT: self.fingerprint}
            self._wake()

    def over(self) -> bool:
        """The call is over; return whether it may have run (`OnceInvocation.may_have_run`)."""
        invocation, self._invocation = self._invocation, None
        self._body = None
        self.is_free = invocation is not None and not invocation.may_have_run
        self._wake()
        return not self.is_free

    def when_known(self, then: Callable[[], None]) -> None:
        """Call ``then`` when it is known what its request is, or that it never will be."""
        is_over = self.call is not None and self.call.is_over
        if self.fingerprint or self.is_refused or is_over:
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


class KeyedExchange(FirstExchange):
    """The client that makes a call with a key."""

    __slots__ = ("_keyed",)

    def __init__(
        self,
        call: DetachedCall,
        client: ResponseWriter,
        windows: Windows,
        terms: Terms,
        keyed: KeyedCall,
    ) -> None:
        super().__init__(call, client, windows, terms)
        self._keyed = keyed

    def request_data(self, data: bytes) -> None:
        """The next bytes of the request body."""
        self._keyed.add(data)
        super().request_data(data)

    def request_end(self) -> None:
        """The request is complete: it can be compared with others."""
        self._keyed.complete()
        super().request_end()


class RepeatedResponse(ResponseExchange):
    """A client that repeats a call, and gets the response of the first one. Call `start`."""

    __slots__ = ()

    own_lines = encode_lines(REPLAYED)

    def start(self) -> None:
        """Bring the client what it waits for. Raises as `ResponseExchange.begin`."""
        raise NotImplementedError

    def _headers(self, recording: Recording) -> Headers:
        return [*super()._headers(recording), *REPLAYED]

    def _length(self, recording: Recording) -> int | None:
        """Return the length that the first client was told: the method is the same."""
        return recording.body_bytes

    def _send(self, status: int, headers: Headers, body: bytes) -> None:
        super()._send(status, [*headers, *REPLAYED], body)


class RepeatedExchange(RepeatedResponse):
    """One on the routes where clients wait for the response, or want 202 by themselves."""

    __slots__ = ("_asked",)

    def __init__(
        self,
        call: DetachedCall,
        client: ResponseWriter,
        windows: Windows,
        asked: Repetition,
    ) -> None:
        super().__init__(call, client, windows, asked.access)
        self._asked = asked

    def start(self) -> None:
        """Bring the client what the terms of its own call want."""
        terms = self._asked.terms
        if not terms.is_async:
            self.begin(self._asked.poll_s)
        elif terms.wait_s:
            self.begin(terms.wait_s)
        else:
            self._accept()

    def timed_out(self) -> None:
        """The client has waited for as long as it wanted to."""
        self._stop()
        if self._asked.terms.is_async:
            self._accept()
        else:
            self.send_problem(PollTimeout.of(self._asked.poll_s, _STILL_RUNS, 1))

    def _accept(self) -> None:
        self.send_accepted(ACCEPTED)


class RepeatedCall(NullRequestStream):
    """A call that repeats the one that its holder has, once its own request is complete."""

    __slots__ = (
        "_count",
        "_fingerprint",
        "_keyed",
        "_make",
        "_poll_s",
        "_refuse",
        "_stream",
        "_windows",
        "due_at",
        "slot",
    )

    def __init__(
        self,
        keyed: KeyedCall,
        asked: Repetition,
        make: Callable[[DetachedCall], RepeatedResponse],
        refuse: Callable[[GatewayError], object],
        count: Callable[[Decision], object],
        windows: Windows,
    ) -> None:
        """``make`` returns the exchange of its client, ``refuse`` responds with a problem.

        ``count`` is called with what becomes of the call.
        """
        self._keyed = keyed
        self._windows = windows
        self._poll_s = asked.poll_s
        self.due_at: float | None = None
        self.slot = -1
        self._fingerprint = asked.fingerprint
        self._make = make
        self._refuse = refuse
        self._count = count
        self._stream: RepeatedResponse | None = None

    def start(self) -> None:
        """Decide as soon as it is known what the first request is."""
        self._windows.open(self, self._poll_s)
        self._keyed.when_known(self._decide)

    def timed_out(self) -> None:
        """The client has waited for as long as it wanted to."""
        self._keyed.forget(self._decide)
        self._refuse(PollTimeout.of(self._poll_s, _INCOMPLETE, 1))

    def request_broken(self) -> None:
        """The client left: the first call goes on."""
        self._windows.close(self)
        self._keyed.forget(self._decide)
        if self._stream is not None:
            self._stream.request_broken()

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.pause_writing()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume_writing()

    def _decide(self) -> None:
        self._windows.close(self)
        keyed = self._keyed
        call = keyed.call
        if call is None or keyed.is_free:
            self._count(Decision.AGAIN)
            self._refuse(Conflict(DID_NOT_RUN))
            return
        # Without a fingerprint its client left before its request was complete.
        found = Found.RUNNING if keyed.fingerprint else Found.LOST
        decision = decide(found, self._fingerprint, keyed.fingerprint)
        self._count(Decision.REPLAY if decision is Decision.JOIN and call.is_over else decision)
        if decision is not Decision.JOIN:
            self._refuse(KeyReused() if decision is Decision.REFUSE else OutcomeUnknown())
            return
        try:
            self._stream = self._make(call)
            self._stream.start()
        except GatewayError as error:
            self._refuse(error)


class RepeatedRequest(NullRequestStream):
    """The request of a call whose key has been claimed: it is read to its end, and not kept."""

    __slots__ = (
        "_body",
        "_bytes",
        "_complete",
        "_is_broken",
        "_left",
        "_max_bytes",
        "_refuse",
        "_stream",
    )

    def __init__(
        self,
        body: Fingerprint,
        complete: Callable[[str], None],
        refuse: Callable[[GatewayError], object],
        left: Callable[[], object],
        max_bytes: int,
    ) -> None:
        """``complete`` is called with the fingerprint, ``left`` if the client leaves before.

        A body of more than ``max_bytes``, if that is not 0, is refused.
        """
        self._body = body
        self._bytes = 0
        self._max_bytes = max_bytes
        self._complete: Callable[[str], None] | None = complete
        self._refuse = refuse
        self._left = left
        self._stream: RequestStream | None = None
        self._is_broken = False

    @property
    def is_broken(self) -> bool:
        """Whether the client has left: nothing may be sent to it."""
        return self._is_broken

    def serve(self, stream: RequestStream) -> None:
        """``stream`` gets the events that are still to come."""
        self._stream = stream

    def request_data(self, data: bytes) -> None:
        """Take the next bytes into account."""
        if self._complete is None:
            return
        self._body.add(data)
        self._bytes += len(data)
        if 0 < self._max_bytes < self._bytes:
            self._complete = None
            self._refuse(BodyTooLarge.above(self._max_bytes))

    def request_end(self) -> None:
        """The request is complete."""
        complete, self._complete = self._complete, None
        if complete is not None:
            complete(self._body.digest())

    def request_broken(self) -> None:
        """The client left."""
        self._is_broken = True
        if self._stream is not None:
            self._stream.request_broken()
        elif self._complete is not None:
            self._complete = None
            self._left()

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.pause_writing()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume_writing()
