"""Plans what one function version needs now: a snapshot in, actions out. Pure.

A plan is made after every change, and at the time that the previous plan asked for. It follows
from the snapshot, so an action that failed, or whose outcome is unknown, is planned again. The
planner itself keeps only state that no stored record holds: how often an instance failed in a row,
since when it has been idle, since when a draining queue has been empty.

External workers register as instances: none is created, restarted or scaled. They are counted,
told to stop when they are not wanted any more, and forgotten once they have ended, or are not heard
of for ``unresponsive_s`` after their leases.

An instance that ends by itself is restarted under the same id, after a growing delay. While the
version is DEPLOYING the attempts are counted, and too many of them in a row make it FAILED.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.model import Deployment, GpuSpec, Instance, Phase, VersionState
from gateway.domain.states import is_running
from gateway.provision.actions import (
    Action,
    Create,
    EndQueue,
    Fail,
    Finish,
    Forget,
    Plan,
    Restart,
    SetPhase,
    Snapshot,
    Stop,
)
from gateway.provision.backend import InstanceStatus, RunState
from gateway.provision.scaling import CALM_S, Autoscaler

DRAIN_S = 0.5
"""Time between two readings of a draining queue."""
ORPHAN_S = 10.0
"""Age from which an instance without a record is stopped: a younger one's may be on its way."""
CANNOT_SERVE = "its worker says that it cannot serve"
NOT_HEARD_OF = "its worker is not heard of"


@dataclass(frozen=True, slots=True)
class Policy:
    """How instances are kept running; durations in seconds.

    A failed instance is restarted after ``restart_first_s``, twice as long after each further
    failure up to ``restart_most_s``, and from the beginning again once it has run for
    ``steady_s``. ``max_failed_starts`` in a row while DEPLOYING make it FAILED. An instance that
    ran and then is unhealthy, or without a connected worker, for ``unresponsive_s`` is ended and
    restarted, but not while its worker says that requests run. More instances are started, up to
    the maximum, once requests have waited for ``scale_up_s``. Instances above the minimum are
    stopped once they were not needed for ``idle_s``, with ``stop_grace_s`` to finish. A drained
    queue counts as empty once it was empty for ``drain_settle_s``: a gateway process may take so
    long to learn of the undeploy.
    """

    restart_first_s: float = 1.0
    restart_most_s: float = 60.0
    steady_s: float = 60.0
    max_failed_starts: int = 5
    unresponsive_s: float = 60.0
    scale_up_s: float = 1.0
    idle_s: float = 300.0
    stop_grace_s: float = 30.0
    drain_settle_s: float = 1.5


class InstanceHistory:
    """What the planner remembers of one instance; times are Unix seconds.

    ``failures`` counts failures in a row. ``busy_at`` is when the instance was last busy.
    """

    __slots__ = (
        "busy_at",
        "down_since",
        "failures",
        "has_run",
        "restart_at",
        "unhealthy_since",
        "up_since",
    )

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.down_since: float | None = None
        self.restart_at = 0.0
        self.has_run = False
        self.up_since: float | None = None
        self.unhealthy_since: float | None = None
        self.busy_at = now

    def mark_up(self, now: float) -> None:
        """Record that the instance runs at ``now``."""
        if self.up_since is None:
            # It is idle from now on, however long it took to start.
            self.up_since = self.busy_at = now
        self.has_run, self.unhealthy_since = True, None

    def mark_down(self, status: InstanceStatus, policy: Policy) -> None:
        """Record that the instance has ended; counts each end once."""
        if self.down_since == status.since:
            return
        self.down_since = status.since
        if self.up_since is not None and status.since - self.up_since >= policy.steady_s:
            self.failures = 0
        self.failures += 1
        if status.is_final:
            self.failures = max(self.failures, policy.max_failed_starts)
        self.restart_at = status.since + restart_delay_s(policy, self.failures)
        self.up_since = self.unhealthy_since = None


class Planner:
    """Plans for one version until it is undeployed and nothing of it is left."""

    __slots__ = (
        "_autoscaler",
        "_empty_since",
        "_here",
        "_histories",
        "_is_drained",
        "_is_queue_ended",
        "_policy",
        "_was_deployed",
        "is_finished",
    )

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._histories: dict[str, InstanceHistory] = {}
        self._here: set[str] = set()
        """Instances that this backend has or had: without a status they have ended."""
        self._autoscaler = Autoscaler()
        self._empty_since: float | None = None
        self._was_deployed = False
        self._is_queue_ended = False
        self._is_drained = False
        self.is_finished = False

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the actions that the version needs now. Call `mark_done` after each of them."""
        plan = Plan()
        self._drop_histories(snapshot)
        self._stop_orphans(snapshot, plan)
        deployment = snapshot.deployment
        if deployment is None:
            self._wind_down(snapshot, plan)
            return plan
        self._was_deployed = True
        self.is_finished = False
        self._autoscaler.observe(snapshot, self._policy.idle_s)
        if deployment.draining_until is None:
            self._is_queue_ended = self._is_drained = False
            self._empty_since = None
        own = self._remove_foreign(deployment, snapshot, plan)
        if snapshot.state is VersionState.ERROR and not deployment.is_external:
            for instance in own:
                self._remove(instance, snapshot, plan)
        elif deployment.draining_until is not None:
            self._drain(deployment, own, snapshot, plan)
        else:
            self._maintain(deployment, own, snapshot, plan)
        return plan

    def mark_done(self, action: Action) -> None:
        """Record that ``action`` was executed."""
        if isinstance(action, EndQueue):
            self._is_queue_ended = True
        elif isinstance(action, Fail):
            self._histories[action.instance_id].unhealthy_since = None
        elif isinstance(action, Finish):
            self._was_deployed = False
            self._is_queue_ended = False
            self.is_finished = True

    def _drop_histories(self, snapshot: Snapshot) -> None:
        """Drop what is known of instances that no longer exist."""
        ids = {instance.instance_id for instance in snapshot.instances}
        self._here = (self._here & ids) | snapshot.statuses.keys()
        self._histories = {id_: history for id_, history in self._histories.items() if id_ in ids}

    def _stop_orphans(self, snapshot: Snapshot, plan: Plan) -> None:
        """Stop what runs without a record: nobody would find it again."""
        recorded = {instance.instance_id for instance in snapshot.instances}
        for instance_id, status in snapshot.statuses.items():
            if instance_id in recorded or status.state is RunState.STOPPING:
                continue
            if snapshot.now >= status.since + ORPHAN_S:
                plan.actions.append(Stop(instance_id, self._policy.stop_grace_s))
            else:
                plan.plan_again_at(status.since + ORPHAN_S)

    def _remove_foreign(
        self, deployment: Deployment, snapshot: Snapshot, plan: Plan
    ) -> list[Instance]:
        """Remove instances of other deployments and of dropped specifications; return the rest."""
        own = []
        for instance in snapshot.instances:
            is_own = instance.deployment_id == deployment.deployment_id
            if is_own and deployment.spec(instance.spec_id) is not None:
                own.append(instance)
            else:
                self._remove(instance, snapshot, plan)
        return own

    def _wind_down(self, snapshot: Snapshot, plan: Plan) -> None:
        """End the queue and remove every instance: the version is not deployed."""
        had_queue = self._was_deployed or snapshot.has_queue
        if had_queue and not self._is_queue_ended:
            plan.actions.append(EndQueue())
        for instance in snapshot.instances:
            self._remove(instance, snapshot, plan)
        if snapshot.instances or snapshot.statuses:
            return
        if had_queue:
            plan.actions.append(Finish(None))
        else:
            self.is_finished = True

    def _drain(
        self, deployment: Deployment, own: list[Instance], snapshot: Snapshot, plan: Plan
    ) -> None:
        """Undeploy gracefully: finish queued and running requests until the deadline."""
        until = deployment.draining_until or 0
        self._observe_drain(snapshot)
        if not self._is_drained and snapshot.now < until:
            plan.read_load(DRAIN_S)
            plan.plan_again_at(until)
            kept = [instance for instance in own if self._reconcile(instance, snapshot, plan)]
            self._scale_up(deployment, kept, snapshot, plan)
            return
        if snapshot.now >= until and not self._is_queue_ended:
            plan.actions.append(EndQueue())
        for instance in own:
            self._remove(instance, snapshot, plan)
        if not snapshot.instances and not snapshot.statuses:
            plan.actions.append(Finish(deployment))

    def _observe_drain(self, snapshot: Snapshot) -> None:
        """Mark the queue as drained once it has stayed empty for `Policy.drain_settle_s`."""
        load = snapshot.load
        if load is None:
            return
        if load.may_wait or load.leased:
            self._empty_since = None
            return
        if self._empty_since is None:
            self._empty_since = snapshot.now
        self._is_drained = snapshot.now - self._empty_since >= self._policy.drain_settle_s

    def _maintain(
        self, deployment: Deployment, own: list[Instance], snapshot: Snapshot, plan: Plan
    ) -> None:
        """Keep the number of instances between minimum and maximum, as the load requires."""
        kept = [instance for instance in own if self._reconcile(instance, snapshot, plan)]
        for spec in deployment.specs:
            of_spec = [instance for instance in kept if instance.spec_id == spec.spec_id]
            self._fit(spec, of_spec, snapshot, plan)
        if not any(isinstance(action, Stop) for action in plan.actions):
            surplus = self._autoscaler.pick_surplus(deployment, kept, snapshot, plan)
            if surplus is not None:
                self._stop(surplus, plan)
        self._scale_up(deployment, kept, snapshot, plan)

    def _fit(self, spec: GpuSpec, kept: list[Instance], snapshot: Snapshot, plan: Plan) -> None:
        """Start instances up to the minimum, stop those above the maximum, and idle ones."""
        missing = min(spec.min_instances, spec.max_instances) - len(kept)
        if missing > 0:
            if not spec.is_external:
                plan.actions += [Create(spec)] * missing
            return
        # Instances that do not serve go first, then idle ones, then the newest.
        order = sorted(kept, key=lambda instance: instance.created_at, reverse=True)
        order.sort(key=lambda instance: (is_running(instance, snapshot.now), instance.busy > 0))
        excess = max(len(kept) - spec.max_instances, 0)
        for instance in order[:excess]:
            self._stop(instance, plan)
        if spec.is_external:
            return
        self._stop_idle(order[excess:], -missing - excess, snapshot, plan)

    def _stop_idle(
        self, candidates: Sequence[Instance], spare: int, snapshot: Snapshot, plan: Plan
    ) -> None:
        """Stop up to ``spare`` instances that have been idle for `Policy.idle_s`."""
        for instance in candidates:
            idle_at = self._idle_at(instance)
            if spare <= 0 or idle_at is None:
                continue
            if snapshot.now < idle_at:
                plan.plan_again_at(idle_at)
            elif snapshot.load is None or snapshot.load.may_wait:
                plan.read_load(CALM_S)
            else:
                self._stop(instance, plan)
                spare -= 1

    def _idle_at(self, instance: Instance) -> float | None:
        """Return when an instance above the minimum may be stopped; `None`: not for now.

        An instance that has neither run nor failed yet is still awaited.
        """
        history = self._histories[instance.instance_id]
        if instance.busy or not (history.has_run or history.failures):
            return None
        return history.busy_at + self._policy.idle_s

    def _scale_up(
        self, deployment: Deployment, kept: list[Instance], snapshot: Snapshot, plan: Plan
    ) -> None:
        self._autoscaler.scale_up(deployment, kept, snapshot, plan, self._policy.scale_up_s)

    def _stop(self, instance: Instance, plan: Plan) -> None:
        plan.actions.append(Stop(instance.instance_id, self._policy.stop_grace_s))

    def _reconcile(self, instance: Instance, snapshot: Snapshot, plan: Plan) -> bool:
        """Plan for one wanted instance; return whether it counts toward minimum and maximum."""
        status = snapshot.statuses.get(instance.instance_id)
        history = self._history_of(instance, snapshot)
        if instance.busy:
            history.busy_at = snapshot.now
        if instance.is_external:
            return self._observe_external(instance, history, snapshot, plan)
        is_here = instance.instance_id in self._here
        if not is_here and is_running(instance, snapshot.now):
            # Out of reach, on another machine: it counts as long as its worker is heard of.
            plan.plan_again_at(instance.lease_until)
            return True
        if status is None or status.state is RunState.STOPPING or instance.phase is Phase.STOPPING:
            self._remove(instance, snapshot, plan)
            return False
        if status.state is RunState.DOWN:
            self._restart(instance, status, history, snapshot, plan)
        elif is_running(instance, snapshot.now):
            history.mark_up(snapshot.now)
            self._mark_running(instance, plan)
        elif history.up_since is not None:
            self._mark_unhealthy(instance, status.reason, history, snapshot, plan)
        elif instance.phase is Phase.FAILED or status.reason not in {"", instance.error}:
            error = status.reason or instance.error
            plan.actions.append(SetPhase(instance, Phase.STARTING, error))
        return True

    def _history_of(self, instance: Instance, snapshot: Snapshot) -> InstanceHistory:
        """Return what is remembered of an instance; it may have run under another leader."""
        history = self._histories.get(instance.instance_id)
        if history is None:
            history = self._histories[instance.instance_id] = InstanceHistory(snapshot.now)
            if instance.phase is Phase.RUNNING or instance.error in {CANNOT_SERVE, NOT_HEARD_OF}:
                history.mark_up(snapshot.now)
        return history

    def _mark_running(self, instance: Instance, plan: Plan) -> None:
        """Store that the instance runs, and plan again when its worker's lease expires."""
        if instance.phase is not Phase.RUNNING or instance.error:
            plan.actions.append(SetPhase(instance, Phase.RUNNING, ""))
        plan.plan_again_at(instance.lease_until)

    def _observe_external(
        self, instance: Instance, history: InstanceHistory, snapshot: Snapshot, plan: Plan
    ) -> bool:
        """Plan for an instance that its worker keeps; return whether it counts."""
        has_lease = snapshot.now < instance.lease_until
        if instance.phase is Phase.STOPPING or instance.has_left:
            self._dismiss_external(instance, snapshot, plan)
            return False
        if is_running(instance, snapshot.now):
            history.mark_up(snapshot.now)
            self._mark_running(instance, plan)
            return True
        if has_lease and instance.is_connected:
            if history.has_run and instance.error != CANNOT_SERVE:
                plan.actions.append(SetPhase(instance, Phase.STARTING, CANNOT_SERVE))
            plan.plan_again_at(instance.lease_until)
            return True
        if instance.error != NOT_HEARD_OF:
            plan.actions.append(SetPhase(instance, Phase.STARTING, NOT_HEARD_OF))
        forget_at = instance.lease_until + self._policy.unresponsive_s
        if snapshot.now >= forget_at:
            plan.actions.append(Forget(instance))
        else:
            plan.plan_again_at(forget_at)
        return False

    def _dismiss_external(self, instance: Instance, snapshot: Snapshot, plan: Plan) -> None:
        """Plan the end of an unwanted external instance.

        Its worker learns from the next heartbeat that it is to stop. It has ended when its lease
        has.
        """
        if snapshot.now >= instance.lease_until:
            plan.actions.append(Forget(instance))
            return
        if instance.phase is not Phase.STOPPING:
            self._stop(instance, plan)
        plan.plan_again_at(instance.lease_until)

    def _restart(
        self,
        instance: Instance,
        status: InstanceStatus,
        history: InstanceHistory,
        snapshot: Snapshot,
        plan: Plan,
    ) -> None:
        """Restart an instance that has ended by itself when its delay is over, or give it up."""
        history.mark_down(status, self._policy)
        has_failed = (
            snapshot.state is VersionState.DEPLOYING
            and not history.has_run
            and history.failures >= self._policy.max_failed_starts
        )
        phase = Phase.FAILED if has_failed else Phase.STARTING
        if instance.phase is not phase or instance.error != status.reason or instance.lease_until:
            plan.actions.append(SetPhase(instance, phase, status.reason, is_gone=True))
        if has_failed:
            return
        if snapshot.now >= history.restart_at:
            plan.actions.append(Restart(instance))
        else:
            plan.plan_again_at(history.restart_at)

    def _mark_unhealthy(
        self,
        instance: Instance,
        reason: str,
        history: InstanceHistory,
        snapshot: Snapshot,
        plan: Plan,
    ) -> None:
        """Handle an instance that ran and cannot serve now; end it after too long."""
        is_connected = instance.is_connected and snapshot.now < instance.lease_until
        error = reason or (CANNOT_SERVE if is_connected else NOT_HEARD_OF)
        if instance.phase is not Phase.STARTING or instance.error != error:
            plan.actions.append(SetPhase(instance, Phase.STARTING, error))
        if history.unhealthy_since is None:
            history.unhealthy_since = snapshot.now
        end_at = history.unhealthy_since + self._policy.unresponsive_s
        if snapshot.now < end_at:
            plan.plan_again_at(end_at)
            return
        if is_connected and instance.busy:
            # What still runs is finished: its worker says when nothing does.
            plan.plan_again_at(instance.lease_until)
            return
        what = "unhealthy" if is_connected else "without a connected worker"
        plan.actions.append(
            Fail(instance.instance_id, f"{what} for {self._policy.unresponsive_s:g} s")
        )

    def _remove(self, instance: Instance, snapshot: Snapshot, plan: Plan) -> None:
        """Plan the end of an unwanted instance.

        One that this backend never had is on another machine, whose gateway ends it once its
        record says STOPPING. It has ended when its worker's lease has.
        """
        if instance.is_external:
            self._dismiss_external(instance, snapshot, plan)
            return
        status = snapshot.statuses.get(instance.instance_id)
        if status is None:
            is_heard_of = instance.is_connected and snapshot.now < instance.lease_until
            if instance.instance_id in self._here or not is_heard_of:
                plan.actions.append(Forget(instance))
                return
            plan.plan_again_at(instance.lease_until)
            if instance.phase is not Phase.STOPPING:
                self._stop(instance, plan)
        elif status.state is not RunState.STOPPING:
            self._stop(instance, plan)


def restart_delay_s(policy: Policy, failures: int) -> float:
    """Return the delay before the next start after ``failures`` in a row, at least one."""
    doublings = min(failures - 1, 16)
    return min(policy.restart_first_s * 2.0**doublings, policy.restart_most_s)
