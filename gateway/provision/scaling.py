"""How many instances the requests of a version ask for, between minimum and maximum. Pure.

The first instances of a version that sleeps are started as soon as somebody waits. Where some run
already, a queue that has not been empty for ``scale_up_s`` gets as many more as take all that wait
at once; what is about to run counts as if it ran, and what has just begun to run is given the same
time to take its share.

Workers share the requests evenly, so that with little to do none of them is without for long. An
instance is too many once the others could have taken the most that was queued and running at any
look in the last ``idle_s``, twice that at most. The last one goes only when it is idle: looks at
the queue miss short requests, workers do not (`gateway.provision.planner`). Nothing is given up but
in a look at the queue that finds nobody waiting.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from gateway.domain.model import Deployment, Instance
from gateway.domain.states import is_running
from gateway.provision.actions import Create, Plan, Situation

CALM_S = 1.0
"""Between two looks at a queue in which nothing waits. A version that sleeps is told of sooner."""
URGENT_S = 0.25
"""Between two looks at a queue in which requests wait."""


class Demand:
    """What is remembered of one version's queue."""

    __slots__ = (
        "_capacity",
        "_peak",
        "_peak_before",
        "_seen_at",
        "_waiting_since",
        "_window_ends_at",
    )

    def __init__(self) -> None:
        self._waiting_since: float | None = None
        self._capacity = 0
        self._seen_at = -math.inf
        self._peak = self._peak_before = math.inf
        self._window_ends_at = -math.inf

    def see(self, there: Situation, window_s: float) -> None:
        """Remember what is queued and running, if it was looked at."""
        load, now = there.load, there.now
        if load is None:
            return
        if not load.waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        if now - self._seen_at > max(window_s, 2 * CALM_S):
            # Of the time in which nobody looked nothing is known.
            self._peak = math.inf
        self._seen_at = now
        if now >= self._window_ends_at:
            self._peak_before, self._peak = self._peak, 0
            self._window_ends_at = now + window_s
        self._peak = max(self._peak, load.waiting + load.leased)

    def grow(
        self,
        deployment: Deployment,
        kept: Sequence[Instance],
        there: Situation,
        plan: Plan,
        after_s: float,
    ) -> None:
        """Ask for what is missing. ``kept`` is what counts already, ``after_s`` the patience."""
        self._see_capacity(deployment, kept, there)
        coming = Counter(one.spec.spec_id for one in plan.actions if isinstance(one, Create))
        counted = Counter(one.spec_id for one in kept) + coming
        room = {
            spec.spec_id: spec.max_instances - counted[spec.spec_id] for spec in deployment.specs
        }
        if not any(left > 0 for left in room.values()):
            self._waiting_since = None
            return
        waiting = there.load.waiting if there.load is not None else 0
        plan.read_load(CALM_S if self._waiting_since is None else URGENT_S)
        if not counted:
            waiting = max(_unserved(there), int(there.is_wanted))
        elif self._waiting_since is None or there.now - self._waiting_since < after_s:
            return
        coming.update(one.spec_id for one in kept if not is_running(one, there.now))
        short = waiting - sum(coming[spec.spec_id] * spec.concurrency for spec in deployment.specs)
        for spec in deployment.specs:
            count = min(room[spec.spec_id], -(-short // spec.concurrency))
            if count > 0:
                plan.actions += [Create(spec)] * count
                short -= count * spec.concurrency

    def surplus(
        self, deployment: Deployment, kept: Sequence[Instance], there: Situation, plan: Plan
    ) -> Instance | None:
        """Return one instance that is too many, if there is one; ``kept`` is oldest first."""
        specs = {spec.spec_id: spec for spec in deployment.specs}
        running = [one for one in kept if is_running(one, there.now)]
        count = Counter(one.spec_id for one in running)
        spare = [one for one in running if count[one.spec_id] > specs[one.spec_id].min_instances]
        if len(running) < 2 or not spare:
            return None
        plan.read_load(CALM_S)
        if there.load is None or there.load.waiting:
            return None
        capacity = _capacity(deployment, running)
        most = max(self._peak, self._peak_before)
        for one in reversed(spare):
            if not one.busy and most <= capacity - _capacity(deployment, [one]):
                return one
        return None

    def _see_capacity(
        self, deployment: Deployment, kept: Sequence[Instance], there: Situation
    ) -> None:
        """What has just begun to run has yet to take its share of what waits."""
        running = [one for one in kept if is_running(one, there.now)]
        capacity = _capacity(deployment, running)
        if capacity > self._capacity and self._waiting_since is not None:
            self._waiting_since = there.now
        self._capacity = capacity


def _capacity(deployment: Deployment, running: Iterable[Instance]) -> int:
    """Return what these take at a time: less than is asked, while they follow a change."""
    asked = {spec.spec_id: spec.concurrency for spec in deployment.specs}
    return sum(min(one.slots or asked[one.spec_id], asked[one.spec_id]) for one in running)


def _unserved(there: Situation) -> int:
    """Return how many requests nobody serves while nothing is there that counts.

    What is leased was by a worker that is gone, and is given out again: but not while anything
    still stops, which may be about to finish it.
    """
    if there.load is None:
        return 0
    return there.load.waiting + (0 if there.holdings else there.load.leased)
