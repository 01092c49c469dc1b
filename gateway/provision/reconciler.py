"""Keeps what runs equal to what was asked for, while this process leads.

Driven by events: every change of the store and of the backend touches its version, which is then
looked at; a look also says when the next one is due. Versions are looked at side by side, one
version never twice at a time. The queue is read from time to time only of versions of which it
decides something: those that drain, and those that may have more instances than they have.

A look that fails changes nothing and is repeated. Nothing is done before the store was read whole,
nor after the lease may have ended: it is checked before every single action.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from gateway.domain.model import Change, Instance, RecordError, State
from gateway.domain.states import capacity_of, changes_at, health_of, is_running, state_of
from gateway.errors import Conflict, StoreUnavailable
from gateway.provision.actions import Plan, Situation
from gateway.provision.backend import Backend, Life
from gateway.provision.executor import Execution, Places, fitted
from gateway.provision.instances import Fleet, Fleets
from gateway.provision.leader_election import LeaderLease
from gateway.provision.planner import Policy, Upkeep
from queueing.interface import QueueUnavailable
from runtime.tasks import spawn

RETRY_S = 0.3
"""After a look that failed."""
LOADS_PER_S = 200
"""Readings of all queues together; beyond it each waits longer."""
AT_ONCE = 16
"""Versions looked at side by side."""

_log = logging.getLogger("gateway.provision")


class _LeaseEndedError(Exception):
    """We lead no longer: what is left of a look is somebody else's."""


class Reconciler:
    """Feed it with `apply`; `start` it once the store was read, `stop` it before the end."""

    def __init__(
        self,
        places: Places,
        make_lease: Callable[[Callable[[], None]], LeaderLease],
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``make_lease`` gets what the lease must call on changes; ``clock`` gives Unix seconds."""
        self._loop = asyncio.get_running_loop()
        self._policy = policy or Policy()
        self._clock = clock
        self._backend: Backend = places.backend
        self._places = places
        self._execution = Execution(places, clock)
        self._fleets = Fleets(self._touch)
        self._upkeeps: dict[str, Upkeep] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._loaded_at: dict[str, float] = {}
        self._wanted: set[str] = set()
        self._gone: set[str] = set()
        self._dirty: dict[str, None] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._was_leader = False
        self._is_stopping = False
        self._sweeping: asyncio.Task[None] | None = None
        self.lease = make_lease(self._lease_changed)

    @property
    def is_leader(self) -> bool:
        """Whether this process decides now."""
        return self.lease.is_held

    def apply(self, change: Change) -> None:
        """Take one change of the store, in any order, also before `start`."""
        self._fleets.apply(change)

    def wanted(self, version_id: str) -> None:
        """Somebody has called a version that nothing serves."""
        fleet = self._fleets.get(version_id)
        if fleet is not None and self.lease.is_held:
            self._wanted.add(version_id)
            self._touch(fleet)

    def start(self) -> None:
        """Try to lead, and while we do, act."""
        self._backend.listen(self._backend_changed)
        self._task = spawn(self._run(), "provision.reconciler")
        self.lease.start()

    async def stop(self) -> None:
        """Act no more and let another lead. What runs here is the caller's to stop.

        See `forget_own` for the records of instances that were stopped afterwards.
        """
        # A flag as well: on Python 3.11 what is under `nats-py` can swallow a cancellation.
        self._is_stopping = True
        tasks = [task for task in (self._task, self._sweeping) if task is not None]
        tasks += self._looking.values()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for timer in self._due.values():
            timer.cancel()
        await self.lease.stop()

    async def forget_own(self, instance_ids: set[str]) -> None:
        """Remove the records of instances of ours that have ended with us."""
        for fleet in self._fleets.everything():
            for instance in fleet.instances():
                if instance.instance_id in instance_ids:
                    try:
                        await self._execution.forget(fleet, instance)
                    except (Conflict, StoreUnavailable):
                        return

    # What has happened

    def _touch(self, fleet: Fleet) -> None:
        self._dirty[fleet.version_id] = None
        self._wake.set()

    def _backend_changed(self, function_id: str, version_id: str) -> None:
        self._touch(self._fleets.fleet(function_id, version_id))

    def _lease_changed(self) -> None:
        is_leader = self.lease.is_held
        if is_leader and not self._was_leader:
            self._sweeping = spawn(self._sweep(), "provision.sweep")
        self._was_leader = is_leader
        for fleet in self._fleets.everything():
            self._touch(fleet)
        self._wake.set()

    def _abandon(self) -> None:
        """Stop what runs here: another decides now, and cannot reach it."""
        for _, version_id in list(self._backend.held()):
            for instance_id, holding in self._backend.holdings(version_id).items():
                if holding.life is not Life.STOPPING:
                    self._backend.stop(instance_id, self._policy.stop_grace_s)

    async def _sweep(self) -> None:
        """Find what is left of a dead leader, and of undeploys while nobody led."""
        self._gone.update(await self._backend.clear_remains())
        for known in self._fleets.everything():
            if any(one.instance_id in self._gone for one in known.instances()):
                self._touch(known)
        while self.lease.is_held and not self._is_stopping:
            try:
                for version_id in await self._places.queues.version_ids():
                    if (fleet := await self._with_queue(version_id)) is not None:
                        fleet.has_queue = True
                        self._touch(fleet)
            except (QueueUnavailable, StoreUnavailable):
                await asyncio.sleep(RETRY_S)
                continue
            return

    async def _with_queue(self, version_id: str) -> Fleet | None:
        """Return the entry of a version that has a queue, though it was deleted while nobody led.

        `None` for one that this store has never had: its queue is somebody else's.
        """
        known = self._fleets.known(version_id)
        deleted = None if known else await self._places.records.deleted_version(version_id)
        if deleted is None:
            return known
        return self._fleets.fleet(deleted.function_id, deleted.version_id)

    # Looking

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.lease.is_held:
                if self.lease.is_others:
                    self._abandon()
                continue
            for version_id in list(self._dirty):
                if len(self._looking) >= AT_ONCE:
                    break
                if version_id not in self._looking:
                    del self._dirty[version_id]
                    self._begin(version_id)

    def _begin(self, version_id: str) -> None:
        fleet = self._fleets.get(version_id)
        if fleet is None:
            return
        if (timer := self._due.pop(version_id, None)) is not None:
            timer.cancel()
        task = self._looking[version_id] = spawn(self._attend(fleet), "provision.look")
        task.add_done_callback(lambda _: self._ended(version_id))

    def _ended(self, version_id: str) -> None:
        del self._looking[version_id]
        if self._dirty:
            self._wake.set()

    async def _attend(self, fleet: Fleet) -> None:
        self._look_in(fleet, RETRY_S)
        try:
            plan = await self._look(fleet)
        except _LeaseEndedError:
            return
        except (Conflict, StoreUnavailable, QueueUnavailable, RecordError) as error:
            # A conflict is ordinary: a worker or the API wrote first, and we look again.
            _log.log(
                logging.DEBUG if isinstance(error, Conflict) else logging.WARNING,
                "reconcile.postponed",
                extra={"fields": {"version_id": fleet.version_id, "error": str(error)}},
            )
            return
        if (timer := self._due.pop(fleet.version_id, None)) is not None:
            timer.cancel()
        self._plan_next(fleet, plan)

    async def _look(self, fleet: Fleet) -> Plan:
        holdings = self._backend.holdings(fleet.version_id)
        for lost in fleet.lost(holdings.keys()):
            self._check()
            await self._execution.put_back(fleet, lost)
        now = self._clock()
        await self._settle(fleet, now)
        upkeep = self._upkeeps.get(fleet.version_id)
        if upkeep is None:
            upkeep = self._upkeeps[fleet.version_id] = Upkeep(self._policy)
        there = Situation(
            now=now,
            state=fleet.state,
            deployment=fleet.deployment,
            instances=fleet.instances(),
            holdings=holdings,
            has_queue=fleet.has_queue,
            is_wanted=fleet.version_id in self._wanted,
            gone=self._gone,
        )
        self._wanted.discard(fleet.version_id)
        plan = upkeep.look(there)
        if self._load_delay_s(fleet, plan) <= 0:
            self._loaded_at[fleet.version_id] = self._loop.time()
            load = await self._places.queues.load(fleet.version_id)
            plan = upkeep.look(replace(there, load=load))
        for action in plan.actions:
            self._check()
            await self._execution.carry_out(fleet, action)
            upkeep.done(action)
        if upkeep.is_over and fleet.is_empty() and not self._backend.holdings(fleet.version_id):
            self._fleets.forget(fleet)
            del self._upkeeps[fleet.version_id]
        elif plan.actions:
            # What we did may ask for more, and not all of it comes back as an event.
            self._touch(fleet)
        return plan

    async def _settle(self, fleet: Fleet, now: float) -> None:
        """Bring state and health up to date, if they are not."""
        deployment, instances = fleet.deployment, fleet.instances()
        state = state_of(fleet.state, deployment, instances, now)
        if deployment is not None and state not in {State.INACTIVE, fleet.state}:
            _log.info(
                "version.state",
                extra={
                    "fields": {
                        "version_id": fleet.version_id,
                        "from": fleet.state.value,
                        "to": state.value,
                        "instances": len(instances),
                    }
                },
            )
        is_new_error = state is State.ERROR and fleet.state is not State.ERROR
        if deployment is not None and (is_new_error or state not in {State.INACTIVE, State.ERROR}):
            if is_new_error:
                instances = [self._with_reason(one, now) for one in instances]
            health = fitted(health_of(deployment, instances, now, is_error=is_new_error))
            if health != deployment.health:
                self._check()
                await self._execution.settle_health(fleet, deployment.deployment_id, health)
        if state is not fleet.state or capacity_of(deployment, instances, now) != fleet.capacity:
            self._check()
            await self._execution.settle_state(fleet, now)

    def _with_reason(self, instance: Instance, now: float) -> Instance:
        """Say what is known of an instance that never ran and did not end either."""
        if instance.error or is_running(instance, now):
            return instance
        what = (
            "inference server is not healthy" if instance.is_connected else "worker never connected"
        )
        tail = self._backend.tail(instance.instance_id)
        return replace(
            instance, error=f"not running at the deploy deadline: {what}\n{tail}".strip()
        )

    def _check(self) -> None:
        if self._is_stopping or not self.lease.is_held:
            raise _LeaseEndedError

    # When to look again

    def _load_delay_s(self, fleet: Fleet, plan: Plan) -> float:
        """Return how long until the queue is to be read, infinite if it is not."""
        if plan.load_every_s is None:
            self._loaded_at.pop(fleet.version_id, None)
            return math.inf
        every_s = max(plan.load_every_s, len(self._loaded_at) / LOADS_PER_S)
        read_at = self._loaded_at.get(fleet.version_id, -math.inf)
        return read_at + every_s - self._loop.time()

    def _plan_next(self, fleet: Fleet, plan: Plan) -> None:
        now = self._clock()
        times = [plan.look_at]
        if fleet.deployment is not None:
            times.append(changes_at(fleet.deployment, fleet.instances(), now))
        delays = [at - now for at in times if at is not None]
        delay_s = min([*delays, self._load_delay_s(fleet, plan)])
        if delay_s < math.inf:
            self._look_in(fleet, max(delay_s, 0.0))

    def _look_in(self, fleet: Fleet, delay_s: float) -> None:
        if (timer := self._due.pop(fleet.version_id, None)) is not None:
            timer.cancel()
        self._due[fleet.version_id] = self._loop.call_later(delay_s, self._fall_due, fleet)

    def _fall_due(self, fleet: Fleet) -> None:
        self._due.pop(fleet.version_id, None)
        self._touch(fleet)
