"""A detached call as JSON, for callers: `GET /v2/requests/{id}` and its events."""

from datetime import UTC, datetime
from functools import lru_cache

import orjson

from gateway.errors import problem_for
from gateway.requests.detached import FAILED, LEASED, QUEUED_STATE, DetachedCall
from wire.problem import instance_of

PENDING_WEBHOOK = {"state": "pending", "attempts": 0}
"""What is shown of a webhook before the call is over."""


def view_of(
    call: DetachedCall, position: int | None = None, eta_s: int | None = None
) -> dict[str, object]:
    """Return what callers see of a call.

    ``position`` is its rank in the queue, if it is known; 0: a worker has just leased it.
    """
    state = call.state
    view: dict[str, object] = {
        "requestId": call.request_id,
        "functionId": call.function_id,
        "functionVersionId": call.version_id,
        "state": LEASED if position == 0 and state == QUEUED_STATE else state,
        "createdAt": time_text(call.created_at),
        **({"webhook": PENDING_WEBHOOK} if call.webhook_url else {}),
    }
    if position:
        view["position"] = position
        if eta_s is not None:
            view["etaSeconds"] = eta_s
    recording, ending = call.recording, call.ending
    # A worker that had a call which waits again is not the one that will have it.
    is_waiting = view["state"] == QUEUED_STATE
    leased_at = 0.0 if is_waiting else call.leased_at()
    for name, at in (("leasedAt", leased_at), ("headAt", call.head_at())):
        if at:
            view[name] = time_text(at)
    if ending is None:
        view.update(_progress(call))
    else:
        view["finishedAt"] = time_text(ending.finished_at)
    # A worker that has just leased a call may have told nothing yet.
    view["attempts"] = max(call.attempts(), 1 if view["state"] == LEASED else 0)
    if (instance := call.instance()) and not is_waiting:
        view["instanceId"] = instance
    if ending is not None and ending.problem is not None:
        status, _, body = problem_for(ending.problem, instance_of(call.target), call.request_id)
        view["status"] = status
        view["problem"] = orjson.loads(body)
    elif recording.status:
        view["status"] = recording.status
        view["responseBytes"] = recording.size
        if ending is not None and ending.state == FAILED:
            view["problem"] = _recorded_problem(call)
    return view


def _progress(call: DetachedCall) -> dict[str, object]:
    return {} if call.percent is None else {"percentComplete": call.percent}


def view_body(call: DetachedCall, position: int | None = None, eta_s: int | None = None) -> bytes:
    """Return `view_of` as JSON."""
    return orjson.dumps(view_of(call, position, eta_s))


def time_text(unix_s: float) -> str:
    """Return a time as RFC 3339 has it, in UTC with milliseconds."""
    return _text_of_ms(int(unix_s * 1000))


@lru_cache(maxsize=1024)
def _text_of_ms(unix_ms: int) -> str:
    """Return the text of a time; a call has up to five, many of which it shares with others."""
    second, ms = divmod(unix_ms, 1000)
    return f"{_second_text(second)}.{ms:03d}Z"


@lru_cache(maxsize=64)
def _second_text(unix_s: int) -> str:
    """Return a time without its zone."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[:-6]


def _recorded_problem(call: DetachedCall) -> object:
    """Return the problem document that is the response, `None` if it is no JSON to be shown."""
    try:
        problem = orjson.loads(call.recording.whole() or b"null")
        # Less is written than read: up to 254 levels.
        orjson.dumps(problem)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return problem
