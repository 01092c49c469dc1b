"""What one version needs done now: wanted and actual instances in, actions out. Pure.

Looked at whenever anything has changed, and at the time the last look asked for; what it asks for
follows from what there is, so an action that failed, or of which the outcome is not known, is
asked for again. Remembered is only what no record holds: how often an instance failed in a row,
since when it is idle, since when a drained queue is empty.

An instance that ends by itself is started again under the same id, later each time. While the
version is DEPLOYING the attempts are counted, and too many of them in a row make it FAILED.
"""

from dataclasses import dataclass

from gateway.domain.model import Deployment, GpuSpec, Instance, Phase, State
from gateway.domain.states import is_running
from gateway.provision.actions import (
    Action,
    Break,
    Create,
    EndQueue,
    Finish,
    Forget,
    Note,
    Plan,
    Restart,
    Situation,
    Stop,
)
from gateway.provision.backend import Holding, Life
from gateway.provision.scaling import CALM_S, Demand

DRAIN_S = 0.5
"""Between two looks at a queue that is to run empty."""
CANNOT_SERVE = "its worker says that it cannot serve"
NOT_HEARD_OF = "its worker is not heard of"


@dataclass(frozen=True, slots=True)
class Policy:
    """How instances are kept; durations in seconds.

    An instance that fails is started again after ``restart_first_s``, twice as long after each
    further failure up to ``restart_most_s``, and from the beginning once it has run for
    ``steady_s``. ``max_failed_starts`` in a row while DEPLOYING make it FAILED. One that ran and
    is not heard of for ``unresponsive_s``, or is unhealthy so long, is ended and started again.
    Requests that wait for ``scale_up_s`` are given more instances, up to the maximum; those above
    the minimum are stopped after ``idle_s`` in which the others would have done, with
    ``stop_grace_s`` to finish. A drained queue counts as empty once it was empty for
    ``drain_settle_s``: so long may a gateway process take to learn of the undeploy.
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


class _Course:
    """What is remembered of one instance."""

    __slots__ = ("busy_at", "down_since", "due_at", "failures", "has_run", "lost_at", "up_at")

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.down_since: float | None = None
        self.due_at = 0.0
        self.has_run = False
        self.up_at: float | None = None
        self.lost_at: float | None = None
        self.busy_at = now


class Upkeep:
    """Looks after one version for as long as anything is there or asked for."""

    __slots__ = (
        "_courses",
        "_demand",
        "_empty_at",
        "_is_drained",
        "_is_queue_ended",
        "_policy",
        "_was_deployed",
        "is_over",
    )

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._courses: dict[str, _Course] = {}
        self._demand = Demand()
        self._empty_at: float | None = None
        self._was_deployed = False
        self._is_queue_ended = False
        self._is_drained = False
        self.is_over = False

    def look(self, there: Situation) -> Plan:
        """Return what is to be done."""
        plan = Plan()
        ids = {one.instance_id for one in there.instances}
        self._courses = {id_: course for id_, course in self._courses.items() if id_ in ids}
        deployment = there.deployment
        if deployment is None:
            self._wind_down(there, plan)
            return plan
        self._was_deployed = True
        self.is_over = False
        self._demand.see(there, self._policy.idle_s)
        if deployment.draining_until is None:
            self._is_queue_ended = self._is_drained = False
            self._empty_at = None
        own = []
        for instance in there.instances:
            is_own = instance.deployment_id == deployment.deployment_id
            if is_own and deployment.spec(instance.spec_id) is not None:
                own.append(instance)
            else:
                self._clear(instance, there, plan)
        if there.state is State.ERROR:
            for instance in own:
                self._clear(instance, there, plan)
        elif deployment.draining_until is not None:
            self._drain(deployment, own, there, plan)
        else:
            self._keep(deployment, own, there, plan)
        return plan

    def done(self, action: Action) -> None:
        """``action`` has been carried out."""
        if isinstance(action, EndQueue):
            self._is_queue_ended = True
        elif isinstance(action, Break):
            self._courses[action.instance_id].lost_at = None
        elif isinstance(action, Finish):
            self._was_deployed = False
            self._is_queue_ended = False
            self.is_over = True

    def _wind_down(self, there: Situation, plan: Plan) -> None:
        """Nothing is asked for."""
        had_queue = self._was_deployed or there.has_queue
        if had_queue and not self._is_queue_ended:
            plan.actions.append(EndQueue())
        for instance in there.instances:
            self._clear(instance, there, plan)
        if there.instances or there.holdings:
            return
        if had_queue:
            plan.actions.append(Finish(None))
        else:
            self.is_over = True

    def _drain(
        self, deployment: Deployment, own: list[Instance], there: Situation, plan: Plan
    ) -> None:
        """A graceful undeploy: what is queued and running is finished, until its deadline."""
        until = deployment.draining_until or 0
        self._see_load(there)
        if not self._is_drained and there.now < until:
            plan.read_load(DRAIN_S)
            plan.again_at(until)
            kept = [one for one in own if self._nurse(one, there, plan)]
            self._grow(deployment, kept, there, plan)
            return
        if there.now >= until and not self._is_queue_ended:
            plan.actions.append(EndQueue())
        for instance in own:
            self._clear(instance, there, plan)
        if not there.instances and not there.holdings:
            plan.actions.append(Finish(deployment))

    def _see_load(self, there: Situation) -> None:
        """Notice when the queue is empty for good."""
        load = there.load
        if load is None:
            return
        if load.waiting or load.leased:
            self._empty_at = None
            return
        if self._empty_at is None:
            self._empty_at = there.now
        self._is_drained = there.now - self._empty_at >= self._policy.drain_settle_s

    def _keep(
        self, deployment: Deployment, own: list[Instance], there: Situation, plan: Plan
    ) -> None:
        """The deployment stands: at least the minimum, at most the maximum."""
        kept = [one for one in own if self._nurse(one, there, plan)]
        for spec in deployment.specs:
            self._fill(spec, [one for one in kept if one.spec_id == spec.spec_id], there, plan)
        if not any(isinstance(action, Stop) for action in plan.actions):
            surplus = self._demand.surplus(deployment, kept, there, plan)
            if surplus is not None:
                plan.actions.append(Stop(surplus.instance_id, self._policy.stop_grace_s))
        self._grow(deployment, kept, there, plan)

    def _fill(self, spec: GpuSpec, kept: list[Instance], there: Situation, plan: Plan) -> None:
        missing = min(spec.min_instances, spec.max_instances) - len(kept)
        if missing > 0:
            plan.actions += [Create(spec)] * missing
            return
        # Least is lost with what does not serve, then with what is idle, then with the newest.
        order = sorted(kept, key=lambda one: one.created_at, reverse=True)
        order.sort(key=lambda one: (is_running(one, there.now), one.busy > 0))
        excess = len(kept) - spec.max_instances
        for instance in order[: max(excess, 0)]:
            plan.actions.append(Stop(instance.instance_id, self._policy.stop_grace_s))
        spare = -missing - max(excess, 0)
        for instance in order[max(excess, 0) :]:
            idle_at = self._idle_at(instance)
            if spare <= 0 or idle_at is None:
                continue
            if there.now < idle_at:
                plan.again_at(idle_at)
            elif there.load is None or there.load.waiting:
                plan.read_load(CALM_S)
            else:
                plan.actions.append(Stop(instance.instance_id, self._policy.stop_grace_s))
                spare -= 1

    def _idle_at(self, instance: Instance) -> float | None:
        """Return when an instance above the minimum is needed no more; `None`: not for now.

        One that has yet to run, and did not fail so far, is being waited for.
        """
        course = self._courses[instance.instance_id]
        if instance.busy or not (course.has_run or course.failures):
            return None
        return course.busy_at + self._policy.idle_s

    def _grow(
        self, deployment: Deployment, kept: list[Instance], there: Situation, plan: Plan
    ) -> None:
        self._demand.grow(deployment, kept, there, plan, self._policy.scale_up_s)

    def _nurse(self, instance: Instance, there: Situation, plan: Plan) -> bool:
        """See to one instance that is wanted; return whether it counts as one."""
        holding = there.holdings.get(instance.instance_id)
        course = self._courses.get(instance.instance_id)
        if course is None:
            course = self._courses[instance.instance_id] = _Course(there.now)
        if instance.busy:
            course.busy_at = there.now
        if holding is None or holding.life is Life.STOPPING or instance.phase is Phase.STOPPING:
            return self._clear(instance, there, plan)
        if holding.life is Life.DOWN:
            self._revive(instance, holding, course, there, plan)
        elif is_running(instance, there.now):
            if course.up_at is None:
                # It is idle from now on, however long it took to come up.
                course.up_at = course.busy_at = there.now
            course.has_run, course.lost_at = True, None
            if instance.phase is not Phase.RUNNING or instance.error:
                plan.actions.append(Note(instance, Phase.RUNNING, ""))
            plan.again_at(instance.lease_until)
        elif course.up_at is not None:
            self._miss(instance, course, there, plan)
        elif instance.phase is Phase.FAILED:
            plan.actions.append(Note(instance, Phase.STARTING, instance.error))
        return True

    def _revive(
        self, instance: Instance, holding: Holding, course: _Course, there: Situation, plan: Plan
    ) -> None:
        """An instance has ended by itself."""
        policy = self._policy
        if course.down_since != holding.since:
            course.down_since = holding.since
            if course.up_at is not None and holding.since - course.up_at >= policy.steady_s:
                course.failures = 0
            course.failures = (
                max(course.failures + 1, policy.max_failed_starts)
                if holding.is_final
                else course.failures + 1
            )
            course.due_at = holding.since + restart_delay_s(policy, course.failures)
            course.up_at = course.lost_at = None
        has_failed = (
            there.state is State.DEPLOYING
            and not course.has_run
            and course.failures >= policy.max_failed_starts
        )
        phase = Phase.FAILED if has_failed else Phase.STARTING
        if instance.phase is not phase or instance.error != holding.reason or instance.lease_until:
            plan.actions.append(Note(instance, phase, holding.reason, is_gone=True))
        if has_failed:
            return
        if there.now >= course.due_at:
            plan.actions.append(Restart(instance))
        else:
            plan.again_at(course.due_at)

    def _miss(self, instance: Instance, course: _Course, there: Situation, plan: Plan) -> None:
        """An instance ran and does not now, but has not ended either."""
        is_heard = instance.is_connected and there.now < instance.lease_until
        why = CANNOT_SERVE if is_heard else NOT_HEARD_OF
        if instance.phase is not Phase.STARTING or instance.error != why:
            plan.actions.append(Note(instance, Phase.STARTING, why))
        course.lost_at = there.now if course.lost_at is None else course.lost_at
        end_at = course.lost_at + self._policy.unresponsive_s
        if there.now < end_at:
            plan.again_at(end_at)
            return
        what = "unhealthy" if is_heard else "without a connected worker"
        plan.actions.append(
            Break(instance.instance_id, f"{what} for {self._policy.unresponsive_s:g} s")
        )

    def _clear(self, instance: Instance, there: Situation, plan: Plan) -> bool:
        """An instance is not wanted. Return whether it still serves, out of our reach.

        One that we do not hold belongs to a leader before us: it is gone, as we may know for sure,
        or will be.
        """
        holding = there.holdings.get(instance.instance_id)
        if holding is None:
            if is_running(instance, there.now) and instance.instance_id not in there.gone:
                plan.again_at(instance.lease_until)
                return True
            plan.actions.append(Forget(instance))
        elif holding.life is not Life.STOPPING:
            plan.actions.append(Stop(instance.instance_id, self._policy.stop_grace_s))
        return False


def restart_delay_s(policy: Policy, failures: int) -> float:
    """Return how long to wait after so many failures in a row, at least one."""
    doublings = min(failures - 1, 16)
    return min(policy.restart_first_s * 2.0**doublings, policy.restart_most_s)
