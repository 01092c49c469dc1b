"""A simulation of gateways, one queue and a worker under overload: the real rules, no clock.

The gateways decide with `gateway.routing.line`, the worker with `worker_agent.job.window`. Time is
simulated; the same seed gives the same run.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.routing.line import Line
from queueing.interface import LineState, OwnLine
from wire.deadlines import RESPONSE_GRACE_S
from worker_agent.job.window import StartGate

SUSPECT_S = 0.25
TICK_S = 0.1
ROUND_TRIP_S = 0.002


@dataclass(eq=False)
class Call:
    """One call; times are simulated seconds."""

    gateway: int
    at: float
    window_s: float
    service_s: float
    sequence: int = 0
    state: str = "waiting"
    leased_at: float = 0.0

    @property
    def deadline(self) -> float:
        return self.at + self.window_s + RESPONSE_GRACE_S


@dataclass
class Gateway:
    line: Line = field(default_factory=Line)
    open: dict[Call, None] = field(default_factory=dict)
    last_sequence: int = 0
    answered: int = 0
    published: int = 0

    def own(self, delivered: int) -> OwnLine:
        after = max(delivered, self.answered)
        waiting = sum(call.sequence > after for call in self.open)
        return OwnLine(self.last_sequence, self.answered, self.published, waiting)


class Overload:
    """``slots`` slots, and calls that arrive ``rate`` times per second."""

    def __init__(
        self,
        *,
        slots: int,
        rate: float,
        service_s: Callable[[random.Random], float],
        window_s: Callable[[random.Random], float],
        shares: Sequence[float] = (1.0,),
        head_s: float | None = None,
        is_acked_at_head: bool = False,
        seed: int = 1,
    ) -> None:
        """Responses are whole, or streams whose head comes after ``head_s``.

        ``is_acked_at_head``: a lease ends with the response head, not with the response.
        """
        self.slots = slots
        self.rate = rate
        self.now = 0.0
        self.refused: list[tuple[float, int]] = []
        self.answered: list[tuple[float, float]] = []
        self.timed_out: list[float] = []
        self._random = random.Random(seed)
        self._service_s = service_s
        self._window_s = window_s
        self._shares = shares
        self._head_s = head_s
        self._is_acked_at_head = is_acked_at_head
        self._gateways = [Gateway() for _ in shares]
        self._gate = StartGate()
        self._queue: deque[Call] = deque()
        self._running: set[Call] = set()
        self._deliveries = self._delivered = 0
        self._sequence = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._load_ends_s: float | None = None
        self._after(0.0, self._arrive)
        self._after(0.0, self._tick)

    def run(self, until_s: float, load_ends_s: float | None = None) -> "Overload":
        """Simulate, or go on; no call arrives after ``load_ends_s``. ``slots`` may be changed."""
        self._load_ends_s = load_ends_s
        while self._events and self._events[0][0] <= until_s:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until_s
        return self

    def goodput(self, since_s: float, until_s: float) -> float:
        """Return the part of the slots' time whose work reached its client."""
        useful_s = sum(
            min(at, until_s) - max(at - service_s, since_s)
            for at, service_s in self.answered
            if at > since_s and at - service_s < until_s
        )
        return useful_s / (self.slots * (until_s - since_s))

    def call(self, gateway: int, window_s: float, service_s: float) -> int | None:
        """Make one call now; return the ``Retry-After`` if it is refused."""
        here = self._gateways[gateway]
        line = here.line
        oldest = next(iter(here.open), None)
        if line.is_long(self.now) or (oldest is not None and self.now - oldest.at >= SUSPECT_S):
            own = here.own(line.delivered)
            if line.is_due(own, self.now):
                self._measure(here)
            if line.excess_s(window_s, own, self.now):
                return line.retry_after_s(window_s, own, self.now)
        self._sequence += 1
        call = Call(gateway, self.now, window_s, service_s, self._sequence)
        here.open[call] = None
        here.last_sequence = call.sequence
        here.published += 1
        self._queue.append(call)
        self._after(call.deadline - self.now, partial(self._time_out, call))
        self._after(ROUND_TRIP_S, self._lease)
        return None

    def leave(self, gateway: int) -> None:
        """End all calls of a gateway that have no response head: their clients leave."""
        here = self._gateways[gateway]
        for call in here.open:
            call.state = "left"
            self._running.discard(call)
        here.open.clear()
        self._lease()

    def _after(self, delay_s: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay_s, self._count, event))

    def _arrive(self) -> None:
        if self._load_ends_s is not None and self.now >= self._load_ends_s:
            return
        draw = self._random
        gateway = draw.choices(range(len(self._shares)), self._shares)[0]
        retry_after_s = self.call(gateway, self._window_s(draw), self._service_s(draw))
        if retry_after_s is not None:
            self.refused.append((self.now, retry_after_s))
        self._after(draw.expovariate(self.rate), self._arrive)

    def _tick(self) -> None:
        for here in self._gateways:
            line = here.line
            if line.is_long(self.now) and line.is_due(here.own(line.delivered), self.now):
                self._measure(here)
        self._after(TICK_S, self._tick)

    def _measure(self, here: Gateway) -> None:
        line, own = here.line, here.own(self._delivered)
        line.measuring = True
        line.asked_at = self.now
        waiting = sum(call.state == "waiting" for call in self._queue)
        leased = sum(
            not (self._is_acked_at_head and call.state == "streaming") for call in self._running
        )
        state = LineState("one", waiting, leased, self._deliveries, self._delivered)

        def measured() -> None:
            line.measuring = False
            line.measured(state, own, self.now)

        self._after(ROUND_TRIP_S, measured)

    def _lease(self) -> None:
        while self._queue and len(self._running) < self.slots:
            call = self._queue.popleft()
            if call.state != "waiting":
                continue
            self._deliveries += 1
            self._delivered = call.sequence
            slack_s = self._gate.slack_s(
                call.deadline - self.now,
                call.window_s + RESPONSE_GRACE_S,
                self.now,
                lambda: len(self._queue),
            )
            if slack_s is None:
                call.state = "late"
                continue
            call.state = "running"
            call.leased_at = self.now
            self._running.add(call)
            head_s = call.service_s if self._head_s is None else self._head_s
            self._after(head_s, partial(self._respond, call, head_s))

    def _respond(self, call: Call, head_s: float) -> None:
        if call.state != "running":
            return
        call.state = "streaming"
        here = self._gateways[call.gateway]
        here.open.pop(call)
        here.line.answered(head_s, self.now)
        here.answered = max(here.answered, call.sequence)
        self._gate.heads.add(head_s, self.now)
        self._after(call.service_s - head_s, partial(self._answer, call))

    def _answer(self, call: Call) -> None:
        call.state = "answered"
        self._running.discard(call)
        self.answered.append((self.now, call.service_s))
        self._lease()

    def _time_out(self, call: Call) -> None:
        if call.state in {"answered", "streaming", "left"}:
            return
        if call.state == "running":
            self._running.discard(call)
            self._gate.heads.add(2 * (self.now - call.leased_at), self.now)
        call.state = "timed out"
        self._gateways[call.gateway].open.pop(call)
        self.timed_out.append(self.now)
        self._lease()
