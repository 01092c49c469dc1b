"""What a call's header ``Cancel-After`` says: how long it may wait, run, and take as a whole.

    Cancel-After: 90                    the whole call, in seconds; also 90s, 5m, 1h30m
    Cancel-After: queue=30s, run=5m     the wait for a worker, and the run; either or both

Durations are written as for Replicate's header of this name, and the second form looks as a
dictionary of RFC 9651 §3.2 does. Source: `docs/wire.md` §6.6.
"""

import re
from typing import NamedTuple

from gateway.errors import BadRequest
from wire.deadlines import MAX_INVOCATION_S

MAX_BOUND_S = int(MAX_INVOCATION_S)
"""The longest call, so the longest bound; the shortest is one second."""
_MAX_BYTES = 64
_DURATION = re.compile(
    rb"(?P<plain>[0-9]{1,9})|(?=[0-9])(?:(?P<h>[0-9]{1,9})h)?(?:(?P<m>[0-9]{1,9})m)?(?:(?P<s>[0-9]{1,9})s)?"
)
_UNITS_S = {"plain": 1, "h": 3600, "m": 60, "s": 1}
_FORMS = "Cancel-After is neither a duration, such as 90, 90s or 1h30m, nor queue=30s, run=5m"


class CallBounds(NamedTuple):
    """How long a call may wait in the queue, run, and take as a whole, in seconds; None: as ever.

    All count from when the call is offered to workers, ``run_s`` from its lease.
    """

    queue_s: int | None = None
    run_s: int | None = None
    whole_s: int | None = None

    def wait_s(self, poll_s: int) -> int:
        """Return how long the call waits for a worker at most; ``poll_s`` is its poll window."""
        return min(poll_s, self.queue_s or poll_s, self.whole_s or poll_s)


def cancel_after(value: bytes) -> CallBounds:
    """Return what ``value`` bounds. Raises `BadRequest`."""
    if len(value) > _MAX_BYTES:
        raise BadRequest(_FORMS)
    if b"=" not in value:
        return CallBounds(whole_s=_seconds(value.strip(b" \t")))
    bounds: dict[bytes, int] = {}
    for member in value.split(b","):
        name, _, duration = member.strip(b" \t").partition(b"=")
        if name not in {b"queue", b"run"}:
            raise BadRequest(_FORMS)
        if name in bounds:
            raise BadRequest(f"Cancel-After has more than one bound for {name.decode()}")
        bounds[name] = _seconds(duration)
    return CallBounds(bounds.get(b"queue"), bounds.get(b"run"))


def _seconds(duration: bytes) -> int:
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise BadRequest(_FORMS)
    seconds = sum(
        int(number) * _UNITS_S[unit] for unit, number in found.groupdict().items() if number
    )
    if not 1 <= seconds <= MAX_BOUND_S:
        raise BadRequest(f"A duration of Cancel-After is not from 1 s to {MAX_BOUND_S} s")
    return seconds
