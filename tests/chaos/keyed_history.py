"""What happened to calls with an Idempotency-Key, and the rules that it must keep. Pure.

A key is a number. It is sent with two requests, its *variants*; the number that the inference
servers see is that of the variant (`number_of`). Times are of the monotonic clock.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

VARIANTS = 2


def number_of(key: int, variant: int) -> int:
    """Return the number of a key's request."""
    return key * VARIANTS + variant


def key_of(number: int) -> int:
    """Return the key of a request."""
    return number // VARIANTS


class Ended(StrEnum):
    """How an attempt ended for its client."""

    WHOLE = "whole"
    CUT = "cut"
    REFUSED = "refused"
    LEFT = "left"
    GAVE_UP = "gave up"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request with a key. ``body`` is the digest of the response's body.

    ``is_served``: the response is an inference server's. ``is_replayed``: it says that it is an
    earlier call's. ``is_final``: it was made when all faults were over. ``missing`` is what a
    served response lacks, or has of another request. ``polls`` is how often its client polled after
    a 202: the rest is about the last response.
    """

    key: int
    variant: int
    gateway: str
    started_at: float
    ended_at: float
    end: Ended
    status: int = 0
    reason: str = ""
    body: str = ""
    request_id: str = ""
    missing: str = ""
    is_served: bool = False
    is_replayed: bool = False
    is_final: bool = False
    polls: int = 0

    @property
    def outcome(self) -> str:
        """The status of a whole response, otherwise the kind of end."""
        if self.end is not Ended.WHOLE:
            return self.end.value
        return f"{self.status} {self.reason}".strip()


@dataclass(frozen=True, slots=True)
class KeyedFault:
    """A part that was killed, and when it served again."""

    target: str
    began_at: float
    ended_at: float


@dataclass(frozen=True)
class KeyedHistory:
    """Everything that is known about one run.

    ``runs`` are the numbers of the requests that inference servers have begun, one for each run;
    ``gateways`` and ``stores`` the names of parts.
    """

    attempts: list[Attempt] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    faults: list[KeyedFault] = field(default_factory=list)
    gateways: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()

    def of_key(self) -> dict[int, list[Attempt]]:
        """The attempts of each key, in the order of their starts."""
        found: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in sorted(self.attempts, key=lambda attempt: attempt.started_at):
            found[attempt.key].append(attempt)
        return found


KeyedCheck = Callable[[KeyedHistory], Iterator[str]]
TAIL_S = 3.0
"""Effects of a fault end as long after it."""
REASONS: dict[int, frozenset[str]] = {
    404: frozenset({""}),
    409: frozenset({""}),
    410: frozenset({"cancelled", "holder_lost"}),
    422: frozenset({"idempotency_key_reused"}),
    429: frozenset({"overloaded", "queue_full"}),
    500: frozenset({"inference_lost", ""}),
    502: frozenset({"outcome_unknown", "worker_lost"}),
    503: frozenset({"draining", "holder_silent", "queue_unavailable", "store_unavailable"}),
    504: frozenset({"poll_timeout", "worker_lost"}),
}
"""What an attempt may be told that gets no response of an inference server."""


def no_key_runs_twice(history: KeyedHistory) -> Iterator[str]:
    """An inference server begins with one request of a key at most, once."""
    runs: dict[int, list[int]] = defaultdict(list)
    for number in history.runs:
        runs[key_of(number)].append(number)
    for key, numbers in sorted(runs.items()):
        if len(numbers) > 1:
            yield f"key {key} ran {len(numbers)} times: {numbers}"


def all_responses_of_a_key_are_the_same(history: KeyedHistory) -> Iterator[str]:
    """Whoever gets a response of an inference server gets that of the one run."""
    for key, attempts in history.of_key().items():
        served = {
            (attempt.status, attempt.body, attempt.request_id)
            for attempt in attempts
            if attempt.is_served and attempt.end is Ended.WHOLE
        }
        if len(served) > 1:
            yield f"key {key} has several responses: {sorted(served)}"
        yield from (
            f"key {key}: a response {attempt.missing}" for attempt in attempts if attempt.missing
        )


def another_request_gets_no_response(history: KeyedHistory) -> Iterator[str]:
    """A request gets a response only if it is the one that ran."""
    ran = {key_of(number): number for number in history.runs}
    for attempt in history.attempts:
        number = number_of(attempt.key, attempt.variant)
        if attempt.is_served and ran.get(attempt.key) != number:
            yield f"key {attempt.key}: request {number} was answered, and has not run"


def every_end_is_explained(history: KeyedHistory) -> Iterator[str]:
    """A client is told what became of its call, unless its gateway is killed while it waits."""
    for attempt in history.attempts:
        if attempt.end is Ended.GAVE_UP or (attempt.is_final and attempt.end is not Ended.WHOLE):
            yield f"key {attempt.key} ended as {attempt.outcome!r}"
        elif attempt.end in (Ended.CUT, Ended.REFUSED):
            # A response that has begun breaks off with any part that it passes: not with the store.
            parts = {fault.target for fault in history.faults} - set(history.stores)
            if attempt.end is Ended.REFUSED:
                parts = {attempt.gateway}
            if not _had_fault(history, attempt, parts):
                yield f"key {attempt.key} ended as {attempt.outcome!r} without a fault"
        elif attempt.end is Ended.WHOLE and not attempt.is_served:
            if attempt.reason not in REASONS.get(attempt.status, frozenset()):
                yield f"key {attempt.key} was told {attempt.outcome!r}"


def nothing_is_unknown_without_a_fault(history: KeyedHistory) -> Iterator[str]:
    """A key's outcome is unknown only if a gateway or a store was killed since its first call."""
    for key, attempts in history.of_key().items():
        for attempt in attempts:
            is_unknown = attempt.reason in {"outcome_unknown", "holder_lost"}
            if is_unknown and not any(
                fault.target in (*history.gateways, *history.stores)
                and fault.ended_at + TAIL_S >= attempts[0].started_at
                and fault.began_at <= attempt.ended_at
                for fault in history.faults
            ):
                yield f"key {key}: its outcome is unknown, and no gateway or store was killed"


def what_a_key_gives_is_settled(history: KeyedHistory) -> Iterator[str]:
    """In the end, the same request with the same key gets the same again, and what it got before.

    What was told of a request that nobody could have run does not bind.
    """
    for key, attempts in history.of_key().items():
        final = {
            # Each refusal is one of its own: nobody has that of an earlier one.
            (attempt.status, attempt.body, attempt.request_id) if attempt.status != 422 else (422,)
            for attempt in attempts
            if attempt.is_final
        }
        if len(final) > 1:
            yield f"key {key} is not settled: {sorted(final)}"
        served = {
            (attempt.status, attempt.body, attempt.request_id)
            for attempt in attempts
            if attempt.is_served and attempt.end is Ended.WHOLE and not attempt.is_final
        }
        # A response whose holder was killed before it was stored is lost.
        unknown = any(a.is_final and a.reason == "outcome_unknown" for a in attempts)
        if served and final and not unknown and served != final:
            yield f"key {key} was answered {sorted(served)}, and then {sorted(final)}"


def the_run_tested_something(history: KeyedHistory) -> Iterator[str]:
    """Calls were answered, joined, polled, replayed and refused, while parts were killed."""
    served = [attempt for attempt in history.attempts if attempt.is_served]
    counts = {
        "keys with several responses": sum(
            sum(a.is_served for a in attempts) > 1 for attempts in history.of_key().values()
        ),
        "responses of earlier calls": sum(attempt.is_replayed for attempt in served),
        "first responses": sum(not attempt.is_replayed for attempt in served),
        "polled responses": sum(attempt.polls > 0 for attempt in served),
        "polls for earlier calls": sum(a.polls > 0 and a.is_replayed for a in served),
        "requests refused for their key": sum(a.status == 422 for a in history.attempts),
        "killed gateways": sum(fault.target in history.gateways for fault in history.faults),
        "killed workers": sum(fault.target not in history.gateways for fault in history.faults),
    }
    yield from (f"no {what}" for what, count in counts.items() if not count)


KEYED_CHECKS: tuple[KeyedCheck, ...] = (
    no_key_runs_twice,
    all_responses_of_a_key_are_the_same,
    another_request_gets_no_response,
    every_end_is_explained,
    nothing_is_unknown_without_a_fault,
    what_a_key_gives_is_settled,
    the_run_tested_something,
)


def _had_fault(history: KeyedHistory, attempt: Attempt, parts: set[str]) -> bool:
    """Return whether one of ``parts`` was killed meanwhile."""
    return any(
        fault.target in parts
        and fault.began_at <= attempt.ended_at
        and fault.ended_at + TAIL_S >= attempt.started_at
        for fault in history.faults
    )
