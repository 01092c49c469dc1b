"""Autoscaling of one function version between minimum and maximum. Pure.

A version without instances gets its first ones as soon as a request waits. A version with
instances gets more once its queue has not been empty for ``scale_up_s``: as many as serve all
waiting requests at once. Instances that are starting count as if they ran, and instances that have
just become ready get ``scale_up_s`` to take their share.

Workers share requests evenly, so that under little load none of them stays idle for long. An
instance is therefore surplus once the others could have served the highest number of queued and
running requests that was read in the last ``idle_s`` (at most twice that). The last instance goes
only when it is idle (`gateway.provision.planner`): reading the queue misses short requests, which
workers report. No instance is given up unless the queue has just been read and nothing waits.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from gateway.domain.model import Deployment, Instance
from gateway.domain.states import is_running
from gateway.provision.actions import Create, Plan, Snapshot

CALM_S = 1.0
"""Time between two readings of a queue in which nothing waits. Wake requests are faster."""
URGENT_S = 0.25
"""Time between two readings of a queue in which requests wait."""


class Autoscaler:
    """Remembers the load of one version's queue; times are Unix seconds."""

    __slots__ = (
        "_capacity",
        "_observed_at",
        "_peak",
        "_previous_peak",
        "_waiting_since",
        "_window_ends_at",
    )

    def __init__(self) -> None:
        self._waiting_since: float | None = None
        self._capacity = 0
        self._observed_at = -math.inf
        self._peak = self._previous_peak = math.inf
        self._window_ends_at = -math.inf

    def observe(self, snapshot: Snapshot, window_s: float) -> None:
        """Remember the load, if the queue was read. Peaks are kept per window of ``window_s``."""
        load, now = snapshot.load, snapshot.now
        if load is None:
            return
        if not load.waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        if now - self._observed_at > max(window_s, 2 * CALM_S):
            # The peak since the previous reading is unknown.
            self._peak = math.inf
        self._observed_at = now
        if now >= self._window_ends_at:
            self._previous_peak, self._peak = self._peak, 0
            self._window_ends_at = now + window_s
        self._peak = max(self._peak, load.waiting + load.leased)

    def scale_up(
        self,
        deployment: Deployment,
        kept: Sequence[Instance],
        snapshot: Snapshot,
        plan: Plan,
        after_s: float,
    ) -> None:
        """Plan the instances that waiting requests need.

        ``kept`` are the instances that count already. Where there are any, requests must have
        waited for ``after_s`` seconds.
        """
        self._observe_capacity(deployment, kept, snapshot)
        coming = Counter(
            action.spec.spec_id for action in plan.actions if isinstance(action, Create)
        )
        counted = Counter(instance.spec_id for instance in kept) + coming
        room = {
            spec.spec_id: 0 if spec.is_external else spec.max_instances - counted[spec.spec_id]
            for spec in deployment.specs
        }
        if not any(left > 0 for left in room.values()):
            self._waiting_since = None
            return
        plan.read_load(CALM_S if self._waiting_since is None else URGENT_S)
        short = self._requests_to_serve(snapshot, after_s, has_instances=bool(counted))
        coming.update(
            instance.spec_id for instance in kept if not is_running(instance, snapshot.now)
        )
        short -= sum(coming[spec.spec_id] * spec.concurrency for spec in deployment.specs)
        for spec in deployment.specs:
            count = min(room[spec.spec_id], -(-short // spec.concurrency))
            if count > 0:
                plan.actions += [Create(spec)] * count
                short -= count * spec.concurrency

    def _requests_to_serve(self, snapshot: Snapshot, after_s: float, *, has_instances: bool) -> int:
        """Return how many requests may have new instances started for them now."""
        if not has_instances:
            return max(_count_unserved(snapshot), int(snapshot.has_wake_request))
        if self._waiting_since is None or snapshot.now - self._waiting_since < after_s:
            return 0
        return 0 if snapshot.load is None else snapshot.load.waiting

    def pick_surplus(
        self, deployment: Deployment, kept: Sequence[Instance], snapshot: Snapshot, plan: Plan
    ) -> Instance | None:
        """Return one surplus instance, `None` if there is none; ``kept`` is oldest first."""
        ready = [instance for instance in kept if is_running(instance, snapshot.now)]
        above = _above_minimum(deployment, ready)
        spare = [instance for instance in above if not instance.is_external]
        if len(ready) < 2 or not spare:
            return None
        plan.read_load(CALM_S)
        if snapshot.load is None or snapshot.load.may_wait:
            return None
        capacity = _capacity(deployment, ready)
        peak = max(self._peak, self._previous_peak)
        for instance in reversed(spare):
            if not instance.busy and peak <= capacity - _capacity(deployment, [instance]):
                return instance
        return None

    def _observe_capacity(
        self, deployment: Deployment, kept: Sequence[Instance], snapshot: Snapshot
    ) -> None:
        """Wait anew when capacity grows: the new instance has yet to take waiting requests."""
        ready = [instance for instance in kept if is_running(instance, snapshot.now)]
        capacity = _capacity(deployment, ready)
        if capacity > self._capacity and self._waiting_since is not None:
            self._waiting_since = snapshot.now
        self._capacity = capacity


def _capacity(deployment: Deployment, ready: Iterable[Instance]) -> int:
    """Return how many requests these instances run at a time.

    A worker that has yet to follow a changed specification counts with the lower number.
    """
    specified = {spec.spec_id: spec.concurrency for spec in deployment.specs}
    return sum(
        min(instance.slots or specified[instance.spec_id], specified[instance.spec_id])
        for instance in ready
    )


def _above_minimum(deployment: Deployment, ready: Sequence[Instance]) -> list[Instance]:
    """Return the instances of every specification that has more than its minimum."""
    minimum = {spec.spec_id: spec.min_instances for spec in deployment.specs}
    count = Counter(instance.spec_id for instance in ready)
    return [instance for instance in ready if count[instance.spec_id] > minimum[instance.spec_id]]


def _count_unserved(snapshot: Snapshot) -> int:
    """Return how many requests have no worker, for a version of which no instance counts.

    A leased request belongs to a worker that is gone and will be delivered again, unless an
    instance is still stopping: it may be about to finish the request.
    """
    if snapshot.load is None:
        return 0
    return snapshot.load.waiting + (0 if snapshot.statuses else snapshot.load.leased)
