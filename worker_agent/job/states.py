"""The life of a job, one leased request in the agent: states, events, transitions, outcomes.

OPENING     a connection to the inference server is being found
FORWARDING  the request is on its way or there; no response head yet, at most interim ones
STREAMING   the response goes to the gateway as it arrives
DELIVERING  the gateway has been sent the whole response and has not confirmed it
DONE        over: the lease has ended, the outcome is set, no port is called any more

A response that arrives at once skips STREAMING. An interim response, which is passed on only if the
function version says so, opens the POST and is no response head: the job stays in FORWARDING, keeps
its lease, and its request may be run again as before. The slot is free as soon as the inference
server has nothing more to do: in DELIVERING, or in DONE if the job left a request that still runs
there. The lease is acknowledged when the head of a streamed response has been written to the
gateway, and otherwise when all is over, whatever the outcome: the gateway accepts one response for
a request, so a second run could not be delivered. A nak ends the lease of a job without a response
whose request was not sent, may be run again, or is abandoned by the agent. A lease that may be
over, because the process stood still, is not ended at all: it may be another worker's. A job whose
poll window ends too soon goes from OPENING to DONE (`worker_agent.job.window`).

A client of NVCF's polling routes may be told to ask again, before there is a response
(`worker_agent.compat`). The state stays as it is then, and so does the lease, but nobody else may
run the request from now on. An inference server that responds 202 is asked again in FORWARDING.

`TRANSITIONS` is the complete transition table. `worker_agent.job.machine` implements it as plain
methods; a test fires every event in every state and compares with the table, and
``docs/states.md`` is generated from it.
"""

from enum import Enum, IntEnum


class State(IntEnum):
    """Where a job is in its life. A later state has a higher number."""

    OPENING = 1
    FORWARDING = 2
    STREAMING = 3
    DELIVERING = 4
    DONE = 5


OPENING, FORWARDING, STREAMING, DELIVERING, DONE = State


class Event(Enum):
    """What can happen to a job. The value is the method of `Job` that reports it."""

    BEGIN = "begin"
    # The inference server
    FAILED = "failed"
    MAY_SEND = "may_send"
    SENT = "sent"
    SENT_AGAIN = "sent_again"
    UNREACHABLE = "unreachable"
    RESPONSE_INTERIM = "response_interim"
    RESPONSE_WHOLE = "response_whole"
    RESPONSE_HEAD = "response_head"
    RESPONSE_DATA = "response_data"
    RESPONSE_CHUNK = "response_chunk"
    RESPONSE_END = "response_end"
    RESPONSE_BROKEN = "response_broken"
    DISCARDED = "discarded"
    PAUSE_WRITING = "pause_writing"
    RESUME_WRITING = "resume_writing"
    # The gateway: the rest of the request body
    REST_DATA = "rest_data"
    REST_END = "rest_end"
    REST_BROKEN = "rest_broken"
    # The gateway: the response
    POST_PAUSE_WRITING = "post_pause_writing"
    POST_RESUME_WRITING = "post_resume_writing"
    POSTED = "posted"
    POSTPONED = "postponed"
    POST_ANSWERED = "post_answered"
    POST_BROKEN = "post_broken"
    # The queue and the agent
    CANCEL = "cancel"
    ABANDON = "abandon"
    LEASED_AGAIN = "leased_again"
    LAPSE = "lapse"
    RUN_ENDED = "run_ended"


_FIRST_STATE = {
    Event.FAILED: OPENING,
    Event.MAY_SEND: OPENING,
    Event.SENT_AGAIN: FORWARDING,
    Event.POSTPONED: OPENING,
    Event.UNREACHABLE: OPENING,
    Event.RESPONSE_INTERIM: FORWARDING,
    Event.RESPONSE_WHOLE: FORWARDING,
    Event.RESPONSE_HEAD: FORWARDING,
    Event.RESPONSE_DATA: STREAMING,
    Event.RESPONSE_CHUNK: STREAMING,
    Event.RESPONSE_END: STREAMING,
    Event.RESPONSE_BROKEN: FORWARDING,
    Event.DISCARDED: DELIVERING,
    Event.PAUSE_WRITING: OPENING,
    Event.RESUME_WRITING: OPENING,
    Event.REST_DATA: OPENING,
    Event.REST_END: OPENING,
    Event.REST_BROKEN: OPENING,
    Event.POST_PAUSE_WRITING: OPENING,
    Event.POST_RESUME_WRITING: OPENING,
    Event.POSTED: FORWARDING,
    Event.POST_ANSWERED: FORWARDING,
    Event.POST_BROKEN: FORWARDING,
    Event.CANCEL: OPENING,
    Event.ABANDON: OPENING,
    Event.LEASED_AGAIN: OPENING,
    Event.LAPSE: OPENING,
    Event.RUN_ENDED: OPENING,
}
"""The state from which on an event can come. Inference server, gateway and queue act independently
of one another, so every event may be late: the job is past it and ignores it. None comes early."""

TRANSITIONS: dict[tuple[State, Event], frozenset[State]] = {
    # Unless a line below says more, an event leaves the state as it is.
    **{
        (state, event): frozenset({state})
        for event, first in _FIRST_STATE.items()
        for state in State
        if state >= first
    },
    # A request whose window ends too soon is not sent: at its lease, or when a connection is open.
    (OPENING, Event.BEGIN): frozenset({OPENING, DELIVERING, DONE}),
    **{(state, Event.FAILED): frozenset({DELIVERING}) for state in (OPENING, FORWARDING)},
    (OPENING, Event.MAY_SEND): frozenset({OPENING, DONE}),
    # The inference server. A stale connection breaks before it carried a byte: one more is tried.
    # A request that was not sent goes to another worker, and so does one that may be run again.
    (OPENING, Event.SENT): frozenset({FORWARDING}),
    (OPENING, Event.UNREACHABLE): frozenset({DONE}),
    (FORWARDING, Event.RESPONSE_WHOLE): frozenset({DELIVERING}),
    (FORWARDING, Event.RESPONSE_HEAD): frozenset({STREAMING, DELIVERING}),
    (STREAMING, Event.RESPONSE_END): frozenset({DELIVERING}),
    (FORWARDING, Event.RESPONSE_BROKEN): frozenset({OPENING, DELIVERING, DONE}),
    (STREAMING, Event.RESPONSE_BROKEN): frozenset({STREAMING, DELIVERING, DONE}),
    (STREAMING, Event.POSTED): frozenset({STREAMING, DONE}),
    # The rest of the body. Without it the request fails: by a problem, or by a broken stream.
    (FORWARDING, Event.REST_DATA): frozenset({FORWARDING, DELIVERING, DONE}),
    (STREAMING, Event.REST_DATA): frozenset({STREAMING, DELIVERING, DONE}),
    (FORWARDING, Event.REST_END): frozenset({FORWARDING, DELIVERING, DONE}),
    (STREAMING, Event.REST_END): frozenset({STREAMING, DELIVERING, DONE}),
    (FORWARDING, Event.REST_BROKEN): frozenset({FORWARDING, DELIVERING, DONE}),
    (STREAMING, Event.REST_BROKEN): frozenset({STREAMING, DELIVERING, DONE}),
    # The response at the gateway. A POST that interim responses opened may be over before the head;
    # if it broke, the response gets another. A whole response whose POST broke is delivered once
    # more.
    (FORWARDING, Event.POST_ANSWERED): frozenset({DONE}),
    (STREAMING, Event.POST_ANSWERED): frozenset({DONE}),
    (DELIVERING, Event.POST_ANSWERED): frozenset({DONE}),
    (STREAMING, Event.POST_BROKEN): frozenset({DONE}),
    (DELIVERING, Event.POST_BROKEN): frozenset({DELIVERING, DONE}),
    # The queue and the agent
    **{(state, Event.CANCEL): frozenset({DONE}) for state in State},
    **{(state, Event.ABANDON): frozenset({DONE}) for state in State},
    # Of a client that was told to ask again, no other worker can have the request.
    **{(s, Event.LAPSE): frozenset({s, DONE}) for s in (OPENING, FORWARDING)},
    # The run takes longer than its client allows. After the response head the gateway ends it.
    **{(state, Event.RUN_ENDED): frozenset({DELIVERING, DONE}) for state in (OPENING, FORWARDING)},
}
"""The possible next states by state and event. An event that is absent for a state is impossible
there: the method raises `impossible`."""


def impossible(state: State, event: Event) -> AssertionError:
    """Return the error for an event that the table does not have for ``state``."""
    return AssertionError(f"{event.name} is impossible in {state.name}")


class Outcome(IntEnum):
    """How a job ended; the label of ``worker_outcome_total``."""

    ANSWERED = 1
    """The inference server's response was delivered."""
    FAILED = 2
    """A problem document of the worker was delivered, or the response broke in its middle."""
    CANCELLED = 3
    """The gateway withdrew the request."""
    UNWANTED = 4
    """The gateway ended the POST early or refused it: no client waits for the response."""
    UNDELIVERED = 5
    """The gateway could not be reached, or the connection to it broke."""
    HANDED_BACK = 6
    """Before there was a response the agent stopped, or the inference server could not be reached
    or broke off; another worker gets the request."""
    LATE = 7
    """Not sent to the inference server: its poll window had ended, or would have ended too soon."""
    LAPSED = 8
    """The process stood still, and the lease may have ended; another worker has the request."""
