"""One detached call: an invocation that does not end with the connection that began it.

It takes the place of the client: it is the `http1.stream.ResponseWriter` of its invocation, and
records the response. Clients follow the recording. While one of them is *awaited*, the first client
of a call that is attached for as long as it can be, the worker is slowed down to what that one
reads, as for an attached call; otherwise only the disk slows it down.

Pure: effects are calls on `CallPorts`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.errors import BodyTooLarge, Draining, GatewayError, RunTimeout, WorkerLost
from gateway.invocation.machine import Invocation
from gateway.invocation.states import (
    EXPIRED,
    QUEUED,
    RECEIVING,
    Outcome,
)
from gateway.requests.errors import (
    CallCancelled,
    CallTooLong,
    ResponseTooLarge,
    SpoolFailed,
    TooManyFollowers,
)
from gateway.requests.recording import (
    MAX_FOLLOWERS,
    Follower,
    Recording,
    RecordingCursor,
    RecordingSpace,
)
from http1.stream import NO_TRAILERS, EncodedHead, Headers, ResponseWriter, TakeChunk
from wire.http1 import chunk_data

if TYPE_CHECKING:
    from gateway.requests.keyed import KeyedCall

QUEUED_STATE = "queued"
LEASED = "leased"
RESPONDING = "responding"
DONE = "done"
FAILED = "failed"
CANCELLED = "cancelled"
"""The states that callers see. `DONE`: there is a response of the function, whatever its status."""

NOTHING: Mapping[str, object] = MappingProxyType({})

_BROKEN: dict[Outcome, Callable[[], GatewayError]] = {
    Outcome.WORKER_LOST: lambda: WorkerLost("The worker was lost while it responded"),
    Outcome.DRAINED: lambda: Draining("The gateway process stopped while the function responded"),
    Outcome.TOO_LONG: CallTooLong,
    Outcome.BAD_REQUEST: BodyTooLarge,
    Outcome.RUN_TIMEOUT: RunTimeout,
}
"""What became of a response that broke off after its head."""


PARTS = 24
"""The bytes of an account are forgotten in so many parts of the time for which they are kept."""


class AccountBytes:
    """The bytes of one account's responses that a process has recorded and that are kept still."""

    __slots__ = ("_parts", "bytes")

    def __init__(self) -> None:
        self._parts: deque[int] = deque([0])
        self.bytes = 0

    def add(self, more_bytes: int) -> None:
        """Count bytes of a response that is not complete."""
        self.bytes += more_bytes

    def keep(self, counted_bytes: int) -> None:
        """These of the bytes are a response that is kept from now on."""
        self._parts[-1] += counted_bytes

    def drop(self, kept_bytes: int, parts_ago: int) -> None:
        """A response is deleted that is kept since so many parts, unless it was forgotten."""
        if parts_ago < len(self._parts):
            self._parts[-1 - parts_ago] -= kept_bytes
            self.bytes -= kept_bytes

    def begin_part(self) -> None:
        """Begin the next part, and forget the oldest one: its responses are deleted by now."""
        self._parts.append(0)
        if len(self._parts) > PARTS:
            self.bytes -= self._parts.popleft()


class Limits(NamedTuple):
    """The bounds of recordings, in bytes; 0: none."""

    response_bytes: int = 0
    account_bytes: int = 0


class CallPorts(Protocol):
    """Who keeps the detached calls of the process."""

    limits: Limits
    space: RecordingSpace
    clock: Callable[[], float]
    """The monotonic clock, in seconds."""

    def finished(self, call: "DetachedCall") -> None:
        """The response is recorded, or the call has failed or was cancelled. Called once."""


class Ending(NamedTuple):
    """What is known of a call that is over. Times are Unix seconds, 0.0 for never.

    ``problem`` is set if the gateway has no response of the function, or not the whole of it.
    ``ended_at`` is ``finished_at`` by the monotonic clock.
    """

    state: str
    outcome: Outcome
    attempts: int
    instance: str
    leased_at: float
    head_at: float
    finished_at: float
    ended_at: float
    problem: GatewayError | None = None


class DetachedCall:
    """A detached call of this process.

    ``created_at`` is Unix time in seconds. ``invocation`` is ``None`` once the call is over, and
    ``ending`` before that. ``awaited`` is the follower that the worker waits for, and
    ``take_interim`` takes interim responses for it. ``kind`` is the word for how the call was
    detached; ``watchers`` are called when the state may have changed.
    ``is_kept``: the response is to be stored, also if its first client gets it. ``is_settled``: it
    is stored, or it is known that it will not be; only then others are shown that the call is over.
    ``extra`` is stored with it, for who made the call. ``keyed`` is what is known of a call with an
    Idempotency-Key. ``webhook_url`` is told when the call is over.
    """

    __slots__ = (
        "_account_bytes",
        "_counted_bytes",
        "_ports",
        "_source",
        "account",
        "awaited",
        "created_at",
        "ending",
        "extra",
        "function_id",
        "invocation",
        "is_kept",
        "is_settled",
        "keyed",
        "kind",
        "method",
        "owner",
        "recording",
        "request_id",
        "take_interim",
        "target",
        "version_id",
        "watchers",
        "webhook_url",
    )

    def __init__(
        self,
        ports: CallPorts,
        account_bytes: AccountBytes,
        source: ResponseWriter,
        kind: str,
        created_at: float,
    ) -> None:
        """``source`` is the first client, whose request is read until it is complete."""
        self._ports = ports
        self._account_bytes = account_bytes
        self._counted_bytes = 0
        self._source: ResponseWriter | None = source
        self.kind = kind
        self.created_at = created_at
        self.invocation: Invocation | None = None
        self.request_id = self.account = self.function_id = self.version_id = self.owner = ""
        self.method = self.target = b""
        self.recording = Recording(ports.space, self)
        self.ending: Ending | None = None
        self.awaited: RecordingCursor | None = None
        self.watchers: list[Callable[[], None]] | None = None
        self.is_kept = True
        self.is_settled = False
        self.extra: Mapping[str, object] = NOTHING
        self.keyed: KeyedCall | None = None
        self.webhook_url = ""
        self.take_interim: Callable[[int, Headers], None] | None = None

    def __repr__(self) -> str:
        return f"<DetachedCall {self.request_id} {self.state}>"

    def begins(self, invocation: Invocation) -> None:
        """``invocation`` is the call's; it is called before anything else."""
        version = invocation.version
        self.invocation = invocation
        self.request_id = invocation.request_id
        self.account = invocation.account
        self.owner = version.account
        self.function_id, self.version_id = version.function_id, version.version_id
        self.method, self.target = invocation.method, invocation.target

    @property
    def is_over(self) -> bool:
        return self.ending is not None

    @property
    def is_uploading(self) -> bool:
        """Whether the request is not complete yet."""
        return self._source is not None

    @property
    def state(self) -> str:
        """The state that callers see: `queued` also for a call that a worker has just leased."""
        if self.ending is not None and self.is_settled:
            return self.ending.state
        if self.recording.status or self.ending is not None:
            return RESPONDING
        invocation = self.invocation
        if invocation is None or invocation.state in (RECEIVING, QUEUED, EXPIRED):
            return QUEUED_STATE
        return LEASED

    @property
    def percent(self) -> int | None:
        """How far the call has come, if a worker has told."""
        return None

    # The client that makes the call

    def uploaded(self) -> None:
        """The request is complete: the call does not need its first client any more."""
        self._source = None

    def upload_broken(self) -> None:
        """The first client left before its request was complete: there is no call."""
        invocation = self.invocation
        if invocation is not None:
            self.is_kept = False
            invocation.request_broken()
            self._end(invocation, CallCancelled("The client left before its request was complete"))

    # Followers

    def follow(
        self, follower: Follower, at: int = 0, *, is_awaited: bool = False
    ) -> RecordingCursor:
        """Let ``follower`` have the response, from byte ``at`` of the body on.

        Call `RecordingCursor.pump` to begin. ``is_awaited``: the worker waits for it when it is
        slow. Raises `TooManyFollowers`.
        """
        if self.recording.follower_count >= MAX_FOLLOWERS:
            raise TooManyFollowers
        cursor = self.recording.follow(follower, at)
        if is_awaited:
            self.awaited = cursor
        return cursor

    def pause(self, cursor: RecordingCursor) -> None:
        """The client of ``cursor`` reads slower than it is written to."""
        cursor.pause()
        if cursor is self.awaited and self.invocation is not None:
            self.invocation.pause_writing()

    def resume(self, cursor: RecordingCursor) -> None:
        """The client of ``cursor`` has caught up."""
        cursor.resume()
        if cursor is self.awaited:
            self.caught_up()

    def leave(self, cursor: RecordingCursor) -> None:
        """The client of ``cursor`` is gone. The call goes on."""
        cursor.leave()
        if cursor is self.awaited:
            self.awaited = self.take_interim = None
            self.caught_up()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever the state may have changed."""
        if self.watchers is None:
            self.watchers = []
        self.watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Call it no longer."""
        if self.watchers is not None and watcher in self.watchers:
            self.watchers.remove(watcher)

    def cancel(self) -> None:
        """Nobody wants the response: withdraw the request, or close the worker's connection."""
        invocation = self.invocation
        if invocation is not None:
            invocation.cancelled()
            self._end(invocation, CallCancelled())

    # The response: `http1.stream.ResponseWriter` towards the invocation

    def send_interim(self, status: int, headers: Headers) -> None:
        """Pass an interim response to the awaited follower; it is not recorded."""
        if self.awaited is not None and self.take_interim is not None:
            self.take_interim(status, headers)

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Record the head."""
        invocation = self.invocation
        if invocation is not None:
            self.recording.begin(status, headers, body_bytes)
            if invocation.outcome is None:
                self.tell_watchers()

    def send_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers = NO_TRAILERS,
    ) -> None:
        """Record a whole response."""
        if self.ending is None and not self._is_too_much(len(body)):
            self.recording.record_whole(head, more_lines, body_bytes, body, trailers)
            self._finish()

    def send_data(self, data: bytes) -> None:
        """Record the next bytes."""
        if self.ending is None and not self._is_too_much(len(data)):
            self.recording.add(data)

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Record the data of one chunk."""
        self.send_data(chunk_data(chunk, size))

    def add_trailers(self, trailers: Headers) -> None:
        """Record the trailers."""
        if self.ending is None:
            self.recording.trailers = trailers

    def send_end(self) -> None:
        """The response is complete."""
        if self.ending is None:
            self.recording.finish(self.recording.trailers)
            self._finish()

    def abort(self) -> None:
        """The response broke off after its head."""
        invocation = self.invocation
        if self.ending is None and invocation is not None:
            make = _BROKEN.get(invocation.outcome or Outcome.WORKER_LOST, WorkerLost)
            self._end(invocation, make())

    def open_tunnel(self, headers: Headers) -> None:  # noqa: ARG002
        """Never happens: a call that asks for a WebSocket is not detached."""
        raise AssertionError("a detached call has no tunnel")

    def hand_over(self, headers: Headers, successor: object) -> None:  # noqa: ARG002
        """Never happens: a call has no connection to give away."""
        raise AssertionError("a detached call has no connection")

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """The request's chunks go on as `send_data` brings them."""

    def pause_reading(self) -> None:
        """Read no more of the request for now."""
        if self._source is not None:
            self._source.pause_reading()

    def resume_reading(self) -> None:
        """Read the request again."""
        if self._source is not None:
            self._source.resume_reading()

    def is_writing_paused(self) -> bool:
        """Whether the disk is behind, or the awaited follower."""
        return self.recording.is_behind() or (self.awaited is not None and self.awaited.is_paused)

    # The recording: `gateway.requests.recording.RecordingUser`

    def caught_up(self) -> None:
        """Go on with the response, if nobody else is behind."""
        if self.invocation is not None and not self.is_writing_paused():
            self.invocation.resume_writing()

    def spool_failed(self) -> None:
        """The recording is lost: the call has failed, also if it was over and not stored."""
        self._fail(SpoolFailed())

    # The end

    def _is_too_much(self, more_bytes: int) -> bool:
        """Count bytes of the response; fail, and return whether they are too many."""
        limits = self._ports.limits
        size = self.recording.size + more_bytes
        account = self._account_bytes
        account.add(more_bytes)
        self._counted_bytes += more_bytes
        if 0 < limits.response_bytes < size:
            self._fail(ResponseTooLarge.above(limits.response_bytes))
        elif 0 < limits.account_bytes < account.bytes:
            self._fail(ResponseTooLarge.of_account(limits.account_bytes))
        else:
            if self.recording.is_behind() and self.invocation is not None:
                self.invocation.pause_writing()
            return False
        return True

    def _fail(self, error: GatewayError) -> None:
        invocation = self.invocation
        if invocation is not None:
            invocation.cancelled(Outcome.NOT_RECORDED)
            self._end(invocation, error)
        elif self.ending is not None and not self.is_settled:
            self.ending = self.ending._replace(state=FAILED, problem=error)
            self.recording.break_off()

    def _finish(self) -> None:
        invocation = self.invocation
        if invocation is not None:
            self._end(invocation, None)

    def _end(self, invocation: Invocation, problem: GatewayError | None) -> None:
        """Keep what the invocation knows, and let it go."""
        if self.ending is not None:
            return
        self._source = self.awaited = self.take_interim = None
        self.invocation = None
        self.ending = self._make_ending(invocation, problem)
        if problem is not None:
            self.recording.break_off()
        self._account_bytes.keep(self._counted_bytes)
        self._ports.finished(self)
        self.tell_watchers()

    def settled(self) -> None:
        """The response is stored, or it is known that it will not be."""
        self.is_settled = True
        self.tell_watchers()

    def count_dropped(self, parts_ago: int) -> None:
        """The recorded bytes of the response are kept no longer (`AccountBytes.drop`)."""
        self._account_bytes.drop(self._counted_bytes, parts_ago)
        self._counted_bytes = 0

    def _make_ending(self, invocation: Invocation, problem: GatewayError | None) -> Ending:
        outcome = invocation.outcome or Outcome.ANSWERED
        if isinstance(problem, CallCancelled):
            state = CANCELLED
        elif problem is None and outcome is Outcome.ANSWERED:
            state = DONE
        else:
            state = FAILED
        now = self._ports.clock()
        return Ending(
            state,
            outcome,
            _attempts(invocation),
            invocation.instance.decode("latin-1"),
            self._unix(invocation, _leased_at(invocation)),
            self._unix(invocation, invocation.head_at),
            self._unix(invocation, now),
            now,
            problem,
        )

    def _unix(self, invocation: Invocation, at: float) -> float:
        """Return the Unix time of a monotonic one."""
        return self.created_at + at - invocation.received_at if at else 0.0

    def attempts(self) -> int:
        """Return how often workers have had the call, as far as they have told."""
        if self.ending is not None:
            return self.ending.attempts
        return 0 if self.invocation is None else _attempts(self.invocation)

    def instance(self) -> str:
        """Return the id of the instance that has or had the call, empty if it is not known."""
        if self.ending is not None:
            return self.ending.instance
        return "" if self.invocation is None else self.invocation.instance.decode("latin-1")

    def leased_at(self) -> float:
        """Return when a worker leased the call, in Unix seconds; 0.0 if that is not known."""
        if self.ending is not None:
            return self.ending.leased_at
        invocation = self.invocation
        return 0.0 if invocation is None else self._unix(invocation, _leased_at(invocation))

    def head_at(self) -> float:
        """Return when the response head came, in Unix seconds; 0.0 if it has not."""
        if self.ending is not None:
            return self.ending.head_at
        invocation = self.invocation
        return 0.0 if invocation is None else self._unix(invocation, invocation.head_at)

    def tell_watchers(self) -> None:
        """The state may have changed."""
        for watcher in tuple(self.watchers or ()):
            watcher()


def _attempts(invocation: Invocation) -> int:
    # Workers tell the number of a delivery from the second one on.
    return invocation.deliveries or (1 if _leased_at(invocation) else 0)


def _leased_at(invocation: Invocation) -> float:
    """Return when the last worker leased the call, as far as one has told; 0.0 if not."""
    if invocation.leased_at > invocation.attached_at:
        return invocation.leased_at
    if invocation.attached_at:
        return invocation.attached_at - max(invocation.worker_s, 0.0)
    return invocation.offered_at if invocation.is_direct else 0.0
