"""Makes what runs match the deployments, while this process leads.

Driven by events: every change of the store or of the backend marks its version for a
reconciliation pass; a plan also says when the next pass is due. Versions are reconciled
concurrently, each by one pass at a time. A queue is read periodically only if the plan depends on
it: while the version drains, or may have more instances than it has.

Instances outlive the leader. The next one on the same machine adopts them before its first pass, so
that it finds them as they are, and ends those that the store does not want. While the leader is on
another machine, which cannot reach them, a process that does not lead looks after them instead: it
keeps what the store wants as it is, and ends the rest. It starts nothing.

A pass that fails changes nothing further and is repeated. Nothing is done before the whole store
was read, nor after the leader lease may have expired: it is checked before every action.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from gateway.domain.model import Change, Deployment, Instance, RecordError, VersionState
from gateway.domain.states import capacity_of, changes_at, health_of, is_running, state_of
from gateway.errors import Conflict, StoreUnavailable
from gateway.provision.actions import Plan, Snapshot
from gateway.provision.backend import Backend, RunState
from gateway.provision.executor import Executor, Ports, truncate_health
from gateway.provision.instances import ManagedVersions, VersionInstances
from gateway.provision.leader_election import LeaderLease
from gateway.provision.planner import Planner, Policy
from queueing.interface import QueueUnavailable
from runtime.events import emit
from runtime.tasks import spawn

RETRY_S = 0.3
"""Delay after a failed pass."""
ATTEND_S = 1.0
"""Time between two attempts to adopt instances: one that paused may leave some at any time."""
LOADS_PER_S = 200
"""Readings of all queues together; with more of them, the interval of each grows."""
UNKNOWN_S = 1.0
"""Time to the next look at a version on a cluster that has not been read yet."""
MAX_CONCURRENT = 16
"""Versions reconciled at the same time."""

_log = logging.getLogger("gateway.provision")


class _LeaseExpiredError(Exception):
    """This process no longer leads: the rest of the pass is left to the next leader."""


class Reconciler:
    """Feed it with `apply`; `start` it once the store was read, and `stop` it at the end."""

    def __init__(
        self,
        ports: Ports,
        make_lease: Callable[[Callable[[], None]], LeaderLease],
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``make_lease`` gets the callback for changes of the lease; ``clock`` is Unix seconds."""
        self._loop = asyncio.get_running_loop()
        self._policy = policy or Policy()
        self._clock = clock
        self._backend: Backend = ports.backend
        self._ports = ports
        self._executor = Executor(ports, clock)
        self._versions = ManagedVersions(self._mark_dirty)
        self._planners: dict[str, Planner] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._loaded_at: dict[str, float] = {}
        self._wake_requests: set[str] = set()
        self._dirty: dict[str, None] = {}
        self._passes: dict[str, asyncio.Task[None]] = {}
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._was_leader = False
        self._has_adopted = False
        self._role_changed = asyncio.Event()
        self._attending: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._recovery: asyncio.Task[None] | None = None
        self.lease = make_lease(self._handle_lease_change)

    @property
    def is_leader(self) -> bool:
        """Whether this process leads now."""
        return self.lease.is_held

    def version(self, version_id: str) -> VersionInstances | None:
        """Return what is known of a version, to be read only; `None` if it is not in the store."""
        return self._versions.ensure_stored(version_id)

    def is_planned(self, version_id: str) -> bool:
        """Whether a version has a planner: from its first pass until nothing of it is left."""
        return version_id in self._planners

    def apply(self, change: Change) -> None:
        """Take one change of the store, in any order, also before `start`."""
        self._versions.apply(change)

    def wake(self, version_id: str) -> None:
        """Start an instance of a version that a client has called while nothing serves it."""
        version = self._versions.get(version_id)
        if version is not None and self.lease.is_held:
            self._wake_requests.add(version_id)
            self._mark_dirty(version)

    def start(self) -> None:
        """Compete for the lease, and reconcile while it is held."""
        self._backend.listen(self._handle_backend_change)
        self._task = spawn(self._run(), "provision.reconciler")
        self._attending = spawn(self._attend(), "provision.attend")
        self.lease.start()

    async def stop(self) -> None:
        """Stop reconciling, leave the instances to the next leader, and release the lease.

        The caller closes the backend, which ends instances that do not outlive this process, and
        then calls `forget_own`.
        """
        # A flag as well: on Python 3.11 code below `nats-py` can swallow a cancellation.
        self._is_stopping = True
        own = (self._task, self._attending, self._recovery)
        tasks = [task for task in own if task is not None]
        tasks += self._passes.values()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for timer in self._timers.values():
            timer.cancel()
        # First: the next leader looks for them as soon as it leads.
        self._backend.release()
        await self.lease.stop()

    async def forget_own(self, instance_ids: set[str]) -> None:
        """Delete the records of instances of this process that have ended with it."""
        for version in self._versions.all():
            for instance in version.instances():
                if instance.instance_id in instance_ids:
                    try:
                        await self._executor.forget(version, instance)
                    except (Conflict, StoreUnavailable):
                        return

    # Events

    def _mark_dirty(self, version: VersionInstances) -> None:
        self._dirty[version.version_id] = None
        self._has_work.set()

    def _handle_backend_change(self, function_id: str, version_id: str) -> None:
        self._mark_dirty(self._versions.ensure(function_id, version_id))

    def _handle_lease_change(self) -> None:
        is_leader = self.lease.is_held
        if is_leader and not self._was_leader:
            self._recovery = spawn(self._recover(), "provision.recover")
        if not is_leader:
            self._has_adopted = False
        self._was_leader = is_leader
        self._role_changed.set()
        self._mark_all_dirty()

    def _mark_all_dirty(self) -> None:
        for version in self._versions.all():
            self._mark_dirty(version)
        self._has_work.set()

    async def _attend(self) -> None:
        """Have the instances that are this process's to look after, and no others."""
        while not self._is_stopping:
            self._role_changed.clear()
            try:
                await self._take_or_leave_instances()
            except OSError as error:
                emit(_log, "provision.not_adopted", logging.WARNING, error=str(error))
            try:
                async with asyncio.timeout(ATTEND_S):
                    await self._role_changed.wait()
            except TimeoutError:
                continue

    async def _take_or_leave_instances(self) -> None:
        if self.lease.is_held:
            await self._backend.adopt()
            if not self._has_adopted:
                self._has_adopted = True
                self._mark_all_dirty()
        elif self.lease.is_held_by_other:
            # What they know of instances is out of date.
            self._planners.clear()
            if self.lease.is_holder_near:
                self._backend.release()
                return
            await self._backend.adopt()
            self._end_unwanted()

    def _end_unwanted(self) -> None:
        """Stop the instances here that the leader, on another machine, does not want."""
        for _, version_id in list(self._backend.version_ids()):
            version = self._versions.get(version_id)
            wanted = set() if version is None else version.wanted_ids()
            for instance_id, status in self._backend.statuses(version_id).items():
                is_wanted = instance_id in wanted and status.state is RunState.UP
                if not is_wanted and status.state is not RunState.STOPPING:
                    self._backend.stop(instance_id, self._policy.stop_grace_s)

    async def _recover(self) -> None:
        """Find undeploys that happened without a leader."""
        while self.lease.is_held and not self._is_stopping:
            try:
                await self._find_queues()
            except (QueueUnavailable, StoreUnavailable):
                await asyncio.sleep(RETRY_S)
                continue
            return

    async def _find_queues(self) -> None:
        """Mark every version that has a queue, deployed or not."""
        for version_id in await self._ports.queues.version_ids():
            version = await self._version_of_queue(version_id)
            if version is not None:
                version.has_queue = True
                self._mark_dirty(version)

    async def _version_of_queue(self, version_id: str) -> VersionInstances | None:
        """Return the entry of a version that has a queue, also if it was deleted without a leader.

        Return `None` for a version that this store never had: its queue belongs to another system.
        """
        version = self._versions.ensure_stored(version_id)
        if version is not None:
            return version
        deleted = await self._ports.records.deleted_version(version_id)
        if deleted is None:
            return None
        return self._versions.ensure(deleted.function_id, deleted.version_id)

    # Passes

    async def _run(self) -> None:
        """Start a pass for each marked version, `MAX_CONCURRENT` at most."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            if not (self.lease.is_held and self._has_adopted):
                continue
            for version_id in list(self._dirty):
                if len(self._passes) >= MAX_CONCURRENT:
                    break
                if version_id not in self._passes:
                    del self._dirty[version_id]
                    self._start_pass(version_id)

    def _start_pass(self, version_id: str) -> None:
        version = self._versions.get(version_id)
        if version is None:
            return
        self._cancel_timer(version_id)
        task = self._passes[version_id] = spawn(self._run_pass(version), "provision.pass")
        task.add_done_callback(lambda _: self._end_pass(version_id))

    def _end_pass(self, version_id: str) -> None:
        del self._passes[version_id]
        if self._dirty:
            self._has_work.set()

    async def _run_pass(self, version: VersionInstances) -> None:
        """Reconcile a version once and schedule its next pass."""
        self._schedule(version, RETRY_S)
        try:
            plan = await self._reconcile(version)
        except _LeaseExpiredError:
            return
        except (Conflict, StoreUnavailable, QueueUnavailable, RecordError) as error:
            # A conflict is ordinary: a worker or the API wrote first, and the pass is repeated.
            _log.log(
                logging.DEBUG if isinstance(error, Conflict) else logging.WARNING,
                "reconcile.postponed",
                extra={"fields": {"version_id": version.version_id, "error": str(error)}},
            )
            return
        self._cancel_timer(version.version_id)
        self._schedule_next(version, plan)

    async def _reconcile(self, version: VersionInstances) -> Plan:
        if not self._is_known(version):
            return Plan(next_at=self._clock() + UNKNOWN_S)
        statuses = self._backend.statuses(version.version_id)
        adopted = [self._backend.record(instance_id) for instance_id in statuses]
        for lost in version.find_lost(statuses.keys(), [one for one in adopted if one is not None]):
            self._check_lease()
            await self._executor.restore(version, lost)
        if version.deployment is not None and not self._versions.is_stored(version.version_id):
            self._check_lease()
            await self._executor.end_deployment_of_deleted(version)
        now = self._clock()
        await self._store_results(version, now)
        planner = self._planners.get(version.version_id)
        if planner is None:
            planner = self._planners[version.version_id] = Planner(self._policy)
        snapshot = Snapshot(
            now=now,
            state=version.state,
            deployment=version.deployment,
            instances=version.instances(),
            statuses=statuses,
            has_queue=version.has_queue,
            has_wake_request=version.version_id in self._wake_requests,
        )
        self._wake_requests.discard(version.version_id)
        plan = planner.plan(snapshot)
        if self._load_delay_s(version, plan) <= 0:
            self._loaded_at[version.version_id] = self._loop.time()
            load = await self._ports.queues.load(version.version_id)
            plan = planner.plan(replace(snapshot, load=load))
        for action in plan.actions:
            self._check_lease()
            await self._executor.execute(version, action)
            planner.mark_done(action)
        has_instances = bool(self._backend.statuses(version.version_id))
        if planner.is_finished and version.is_empty() and not has_instances:
            self._versions.forget(version)
            self._planners.pop(version.version_id, None)
        elif plan.actions:
            # The actions may require more, and not all of them cause an event.
            self._mark_dirty(version)
        return plan

    def _is_known(self, version: VersionInstances) -> bool:
        """Whether the backend can tell of every instance that the version has or wants."""
        clusters = {instance.backend for instance in version.instances()}
        if version.deployment is not None:
            clusters.update(spec.backend for spec in version.deployment.specs)
        return all(self._backend.is_known(cluster) for cluster in clusters)

    async def _store_results(self, version: VersionInstances, now: float) -> None:
        """Store the version's state, capacity and health if they have changed."""
        deployment, instances = version.deployment, version.instances()
        state = state_of(version.state, deployment, instances, now)
        if deployment is not None:
            await self._store_health(version, deployment, state, now)
        capacity = capacity_of(deployment, instances, now)
        if state is not version.state or capacity != version.capacity:
            self._check_lease()
            await self._executor.store_state(version, now)

    async def _store_health(
        self, version: VersionInstances, deployment: Deployment, state: VersionState, now: float
    ) -> None:
        """Store why instances do not run. After an ERROR is stored, its reasons stay."""
        instances = version.instances()
        if state not in {VersionState.INACTIVE, version.state}:
            emit(
                _log,
                "version.state",
                **{
                    "version_id": version.version_id,
                    "from": version.state.value,
                    "to": state.value,
                    "instances": len(instances),
                },
            )
        is_new_error = state is VersionState.ERROR and version.state is not VersionState.ERROR
        if state in {VersionState.INACTIVE, VersionState.ERROR} and not is_new_error:
            return
        if is_new_error:
            instances = [self._with_reason(instance, now) for instance in instances]
        health = truncate_health(health_of(deployment, instances, now, is_error=is_new_error))
        if health != deployment.health:
            self._check_lease()
            await self._executor.store_health(version, deployment.deployment_id, health)

    def _with_reason(self, instance: Instance, now: float) -> Instance:
        """Add an error to an instance that neither ran nor ended before the deploy deadline."""
        if instance.error or is_running(instance, now):
            return instance
        what = (
            "inference server is not healthy" if instance.is_connected else "worker never connected"
        )
        tail = "" if instance.is_external else self._backend.log_tail(instance.instance_id)
        return replace(
            instance, error=f"not running at the deploy deadline: {what}\n{tail}".strip()
        )

    def _check_lease(self) -> None:
        if self._is_stopping or not self.lease.is_held:
            raise _LeaseExpiredError

    # Schedule

    def _load_delay_s(self, version: VersionInstances, plan: Plan) -> float:
        """Return how long until the queue is to be read next; infinite if it is not."""
        if plan.load_every_s is None:
            self._loaded_at.pop(version.version_id, None)
            return math.inf
        every_s = max(plan.load_every_s, len(self._loaded_at) / LOADS_PER_S)
        read_at = self._loaded_at.get(version.version_id, -math.inf)
        return read_at + every_s - self._loop.time()

    def _schedule_next(self, version: VersionInstances, plan: Plan) -> None:
        now = self._clock()
        times = [plan.next_at]
        if version.deployment is not None:
            times.append(changes_at(version.deployment, version.instances(), now))
        delays = [at - now for at in times if at is not None]
        delay_s = min([*delays, self._load_delay_s(version, plan)])
        if delay_s < math.inf:
            self._schedule(version, max(delay_s, 0.0))

    def _schedule(self, version: VersionInstances, delay_s: float) -> None:
        self._cancel_timer(version.version_id)
        self._timers[version.version_id] = self._loop.call_later(
            delay_s, self._handle_timer, version
        )

    def _cancel_timer(self, version_id: str) -> None:
        if (timer := self._timers.pop(version_id, None)) is not None:
            timer.cancel()

    def _handle_timer(self, version: VersionInstances) -> None:
        self._timers.pop(version.version_id, None)
        self._mark_dirty(version)
