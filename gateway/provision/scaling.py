"""How many more instances the requests of a version ask for, up to the maximum. Pure.

The first instances of a version that sleeps are started as soon as somebody waits. Where some run
already, a queue that has not been empty for ``scale_up_s`` gets as many more as take all that wait
at once; what is about to run counts as if it ran. Which instances are too many is decided with the
rest in `gateway.provision.upkeep`: those without a request for ``idle_s``.
"""

from collections import Counter
from collections.abc import Sequence

from gateway.functions.model import Deployment, Instance
from gateway.functions.states import is_running
from gateway.provision.actions import Create, Plan, Situation

CALM_S = 1.0
"""Between two looks at a queue in which nothing waits. A version that sleeps is told of sooner."""
URGENT_S = 0.25
"""Between two looks at a queue in which requests wait."""


class Demand:
    """What is remembered of one version's queue."""

    __slots__ = ("_waiting_since",)

    def __init__(self) -> None:
        self._waiting_since: float | None = None

    def grow(
        self,
        deployment: Deployment,
        kept: Sequence[Instance],
        there: Situation,
        plan: Plan,
        after_s: float,
    ) -> None:
        """Ask for what is missing. ``kept`` is what counts already, ``after_s`` the patience."""
        coming = Counter(one.spec.spec_id for one in plan.actions if isinstance(one, Create))
        counted = Counter(one.spec_id for one in kept) + coming
        room = {
            spec.spec_id: spec.max_instances - counted[spec.spec_id] for spec in deployment.specs
        }
        if not any(left > 0 for left in room.values()):
            self._waiting_since = None
            return
        waiting = self._waiting(there)
        plan.read_load(CALM_S if self._waiting_since is None else URGENT_S)
        if not counted:
            waiting = max(waiting, int(there.is_wanted))
        elif self._waiting_since is None or there.now - self._waiting_since < after_s:
            return
        coming.update(one.spec_id for one in kept if not is_running(one, there.now))
        short = waiting - sum(coming[spec.spec_id] * spec.concurrency for spec in deployment.specs)
        for spec in deployment.specs:
            count = min(room[spec.spec_id], -(-short // spec.concurrency))
            if count > 0:
                plan.actions += [Create(spec)] * count
                short -= count * spec.concurrency

    def _waiting(self, there: Situation) -> int:
        """Return how many wait, as far as that is known, and remember since when some do."""
        load = there.load
        if load is None:
            return 0
        if not load.waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = there.now
        return load.waiting
