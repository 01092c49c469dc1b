"""The life of an invocation: states, events, transitions, outcomes and deadlines.

RECEIVING   the client's request is arriving and is collected; no other process knows of it
SENT        a worker has it, over the channel on which it told of a free slot
QUEUED      the envelope is published; a worker may lease it at any time
EXPIRED     the poll window, or what the client allows for the wait, has ended in QUEUED:
             withdrawn; 504 follows with the position it had
PENDING     a worker has responded 202 to a polled call, or will be asked again for its response
ATTACHED    a worker's POST is open; its response head is not complete
STREAMING   the client has the response head; body bytes follow
ENDING      the worker has sent the whole response; the client has not read all of it
DONE        over: the outcome is set and no port is called any more

A call that nobody is in front of goes to SENT, any other one to QUEUED. A worker that cannot take
it after all, or is lost, puts it from SENT to QUEUED; a small response takes it from SENT or QUEUED
to its end at once.

A POST that breaks in ATTACHED puts the invocation back to QUEUED: no response byte has reached the
client, and the queue delivers the request to another worker. If a worker has fetched the rest of a
body that was not collected as a whole this is impossible, so the client gets 502. A break in
STREAMING breaks the client's connection: a truncated response must not look complete. Interim
responses are passed on in ATTACHED and change nothing: they are no part of the response.

Only polled calls (`gateway.invocation.polled`) are ever in PENDING. There a 202 is no response, but
says how far the call has come. Its body is taken first, if it has one; then the worker is asked for
the response, which it sends by another POST: a 202 once more, or the response that the client gets.
Nothing is run again after the first 202.

504 means that no response head came within the poll window: see `head_deadline`. It counts from
QUEUED on, except while a worker waits for what the client sends of its body. A request that waits
for a worker at that moment is withdrawn, and its position is told if no worker can have leased it
between the question for it and the withdrawal. No worker can attach meanwhile.

`TRANSITIONS` is the complete transition table. `gateway.invocation.machine` implements it as plain
methods; a test fires every event in every state and compares with the table, and
``docs/states.md`` is generated from it.
"""

from enum import Enum, IntEnum

from wire.deadlines import MAX_INVOCATION_S, RESPONSE_GRACE_S


class State(IntEnum):
    """Where an invocation is in its life. A later state has a higher number."""

    RECEIVING = 1
    SENT = 2
    QUEUED = 3
    EXPIRED = 4
    PENDING = 5
    ATTACHED = 6
    STREAMING = 7
    ENDING = 8
    DONE = 9


RECEIVING, SENT, QUEUED, EXPIRED, PENDING, ATTACHED, STREAMING, ENDING, DONE = State


class Event(Enum):
    """What can happen to an invocation. The value is the method of `Invocation` that reports it."""

    # The client
    BODY_TOO_LARGE = "body_too_large"
    REQUEST_DATA = "request_data"
    FIRST_PART_END = "first_part_end"
    REQUEST_END = "request_end"
    REQUEST_BROKEN = "request_broken"
    CANCELLED = "cancelled"
    PAUSE_WRITING = "pause_writing"
    RESUME_WRITING = "resume_writing"
    # The file that takes a long body while it is collected
    SPOOL_WRITTEN = "spool_written"
    SPOOL_READ = "spool_read"
    # The queue
    PUBLISH_FAILED = "publish_failed"
    UNDELIVERABLE = "undeliverable"
    # A channel
    LEASED = "leased"
    HANDED_BACK = "handed_back"
    RESPONDED = "responded"
    # A worker that got the request again
    RUN_REQUESTED = "run_requested"
    # A worker that does not start the request, because it would be late
    DROPPED_LATE = "dropped_late"
    # The worker's GET: the rest of the request body
    REST_REQUESTED = "rest_requested"
    REST_PAUSE_WRITING = "rest_pause_writing"
    REST_RESUME_WRITING = "rest_resume_writing"
    REST_BROKEN = "rest_broken"
    # The worker's POST: the response
    ATTACHED = "attached"
    RESPONSE_INTERIM = "response_interim"
    RESPONSE_HEAD = "response_head"
    RESPONSE_DATA = "response_data"
    RESPONSE_CHUNK = "response_chunk"
    RESPONSE_END = "response_end"
    RESPONSE_BROKEN = "response_broken"
    RESPONSE_INVALID = "response_invalid"
    # A worker that is asked for the response to a polled call
    POLL_FAILED = "poll_failed"
    # Time and the process
    DEADLINE_PASSED = "deadline_passed"
    BOUND_PASSED = "bound_passed"
    LEASE_KNOWN = "lease_known"
    POSITION_KNOWN = "position_known"
    SHUT_DOWN = "shut_down"


_ORDERED = {
    Event.BODY_TOO_LARGE,
    Event.REST_REQUESTED,
    Event.ATTACHED,
    Event.RESPONSE_INTERIM,
    Event.RESPONSE_HEAD,
    Event.RESPONSE_DATA,
    Event.RESPONSE_CHUNK,
    Event.RESPONSE_END,
    Event.RESPONSE_BROKEN,
    Event.RESPONSE_INVALID,
}
"""The first event of all, and those of a worker's exchange. The exchange keeps their order, so one
out of order is a bug in the gateway and raises. All other events come from sources that race with
each other."""

TRANSITIONS: dict[tuple[State, Event], frozenset[State]] = {
    # A racing event is accepted in every state. Unless a line below says more, the state stays.
    **{
        (state, event): frozenset({state})
        for state in State
        for event in Event
        if event not in _ORDERED
    },
    # The client
    (RECEIVING, Event.BODY_TOO_LARGE): frozenset({DONE}),
    (RECEIVING, Event.REQUEST_DATA): frozenset({RECEIVING, SENT, QUEUED, DONE}),
    # A body of unknown length may become too large in every state.
    **{
        (s, Event.REQUEST_DATA): frozenset({s, DONE})
        for s in (SENT, QUEUED, EXPIRED, PENDING, ATTACHED, STREAMING)
    },
    (RECEIVING, Event.FIRST_PART_END): frozenset({RECEIVING, SENT, QUEUED, DONE}),
    (RECEIVING, Event.REQUEST_END): frozenset({RECEIVING, SENT, QUEUED, DONE}),
    **{(state, Event.REQUEST_BROKEN): frozenset({DONE}) for state in State},
    **{(state, Event.CANCELLED): frozenset({DONE}) for state in State},
    (ENDING, Event.RESUME_WRITING): frozenset({DONE}),
    (RECEIVING, Event.SPOOL_WRITTEN): frozenset({RECEIVING, SENT, QUEUED, DONE}),
    # The queue. It may be gone, because its version was undeployed, before the request is whole.
    **{(state, Event.PUBLISH_FAILED): frozenset({DONE}) for state in (RECEIVING, SENT, QUEUED)},
    **{(state, Event.UNDELIVERABLE): frozenset({DONE}) for state in (QUEUED, PENDING)},
    # A channel. A call is handed back to the queue, unless its runs, or its body, are used up.
    (SENT, Event.HANDED_BACK): frozenset({QUEUED, DONE}),
    **{(s, Event.RESPONDED): frozenset({PENDING, ENDING, DONE}) for s in (SENT, QUEUED, PENDING)},
    # A worker that got it again. In QUEUED its runs, or the rest of its body, may be used up. In
    # PENDING the worker that had it is lost, unless it asks itself.
    (QUEUED, Event.RUN_REQUESTED): frozenset({QUEUED, DONE}),
    (PENDING, Event.RUN_REQUESTED): frozenset({PENDING, DONE}),
    (SENT, Event.DROPPED_LATE): frozenset({EXPIRED}),
    (QUEUED, Event.DROPPED_LATE): frozenset({QUEUED, EXPIRED}),
    # The worker's GET. A second one in QUEUED proves that the worker which made the first is lost.
    (SENT, Event.REST_REQUESTED): frozenset({SENT}),
    (QUEUED, Event.REST_REQUESTED): frozenset({QUEUED, DONE}),
    (EXPIRED, Event.REST_REQUESTED): frozenset({EXPIRED}),
    (PENDING, Event.REST_REQUESTED): frozenset({PENDING}),
    (ATTACHED, Event.REST_REQUESTED): frozenset({ATTACHED}),
    (STREAMING, Event.REST_REQUESTED): frozenset({STREAMING}),
    (ENDING, Event.REST_REQUESTED): frozenset({ENDING}),
    # The worker's POST. In DONE: the client's connection broke while data was written to it.
    **{(s, Event.ATTACHED): frozenset({ATTACHED}) for s in (SENT, QUEUED, PENDING)},
    (ATTACHED, Event.RESPONSE_INTERIM): frozenset({ATTACHED}),
    (DONE, Event.RESPONSE_INTERIM): frozenset({DONE}),
    (ATTACHED, Event.RESPONSE_HEAD): frozenset({STREAMING, PENDING}),
    (ATTACHED, Event.RESPONSE_INVALID): frozenset({DONE}),
    (PENDING, Event.RESPONSE_DATA): frozenset({PENDING}),
    (PENDING, Event.RESPONSE_CHUNK): frozenset({PENDING}),
    (PENDING, Event.RESPONSE_END): frozenset({PENDING}),
    (PENDING, Event.RESPONSE_BROKEN): frozenset({PENDING}),
    (STREAMING, Event.RESPONSE_DATA): frozenset({STREAMING}),
    (DONE, Event.RESPONSE_DATA): frozenset({DONE}),
    (STREAMING, Event.RESPONSE_CHUNK): frozenset({STREAMING}),
    (DONE, Event.RESPONSE_CHUNK): frozenset({DONE}),
    (STREAMING, Event.RESPONSE_END): frozenset({ENDING, DONE}),
    (DONE, Event.RESPONSE_END): frozenset({DONE}),
    (ATTACHED, Event.RESPONSE_BROKEN): frozenset({SENT, QUEUED, PENDING, DONE}),
    (STREAMING, Event.RESPONSE_BROKEN): frozenset({DONE}),
    (ENDING, Event.RESPONSE_BROKEN): frozenset({ENDING}),
    (DONE, Event.RESPONSE_BROKEN): frozenset({DONE}),
    (PENDING, Event.POLL_FAILED): frozenset({PENDING, DONE}),
    # Time and the process. After the response head the deadline moves from the poll window's end
    # to the end of `MAX_INVOCATION_S`, so the first deadline of a stream changes nothing else.
    # It also moves while a body flows.
    **{
        (s, Event.DEADLINE_PASSED): frozenset({s, DONE})
        for s in (RECEIVING, SENT, PENDING, ATTACHED, STREAMING, ENDING)
    },
    (QUEUED, Event.DEADLINE_PASSED): frozenset({QUEUED, EXPIRED, DONE}),
    # The end of what the client's Cancel-After allows. In QUEUED a worker may have the call, which
    # the queue is asked before it is withdrawn.
    **{
        (s, Event.BOUND_PASSED): frozenset({s, DONE})
        for s in (SENT, PENDING, ATTACHED, STREAMING, ENDING)
    },
    (QUEUED, Event.BOUND_PASSED): frozenset({QUEUED, EXPIRED, DONE}),
    (QUEUED, Event.LEASE_KNOWN): frozenset({QUEUED, EXPIRED}),
    (EXPIRED, Event.POSITION_KNOWN): frozenset({DONE}),
    **{(state, Event.SHUT_DOWN): frozenset({DONE}) for state in State},
}
"""The possible next states by state and event. An event that is absent for a state is impossible
there: the method raises `impossible`."""


def impossible(state: State, event: Event) -> AssertionError:
    """Return the error for an event that the table does not have for ``state``."""
    return AssertionError(f"{event.name} is impossible in {state.name}")


class Outcome(Enum):
    """How an invocation ended; the label of metrics and of the access line.

    ``text`` is the value, which an enumeration's ``value`` takes longer to return.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    ANSWERED = "answered"
    """The client got the function's whole response, whatever its status."""
    CLIENT_GONE = "client_gone"
    """The client left before that. Counted as status 499 if it left before the response head."""
    CANCELLED = "cancelled"
    """A detached call was cancelled before that. Counted as 499 like the last one."""
    NOT_RECORDED = "not_recorded"
    """The response of a detached call was too large to be kept, or the disk failed."""
    BAD_REQUEST = "bad_request"
    """The request does not fit into an envelope, or its body is too large."""
    QUEUE_FULL = "queue_full"
    QUEUE_UNAVAILABLE = "queue_unavailable"
    POLL_TIMEOUT = "poll_timeout"
    """No response head came within the poll window: 504."""
    QUEUE_TIMEOUT = "queue_timeout"
    """No worker began with the call within the time that its ``Cancel-After`` allows: 504."""
    RUN_TIMEOUT = "run_timeout"
    """It ran for as long as its ``Cancel-After`` allows: 504, or a response that breaks off."""
    INFERENCE_LOST = "inference_lost"
    """The client got the worker's problem document: the inference server could not be reached, or
    broke off before its response head, as one that dies does."""
    INFERENCE_INVALID = "inference_invalid"
    """The client got the worker's problem document: the inference server's response was not valid
    HTTP."""
    WORKER_FAILED = "worker_failed"
    """The client got the worker's problem document about an error of its own."""
    WORKER_LOST = "worker_lost"
    """The worker broke off or sent no valid response, or every allowed delivery was used up."""
    TOO_LONG = "too_long"
    """The request's body or the response took longer than `MAX_INVOCATION_S`."""
    DRAINED = "drained"
    """The process stopped before the response was complete."""


def head_deadline(offered_at: float, poll_s: int) -> float:
    """Return the deadline of the response head; after it the client gets 504.

    ``offered_at`` is when the call was offered to workers (monotonic clock, seconds); ``poll_s`` is
    the caller's ``nvcf-poll-seconds`` (`gateway.routing.admission.poll_seconds`).
    """
    return offered_at + poll_s + RESPONSE_GRACE_S


def end_deadline(received_at: float) -> float:
    """Return the deadline of the response's end; after it the response is aborted.

    ``received_at`` is when the request head was complete (monotonic clock, seconds).
    """
    return received_at + MAX_INVOCATION_S
