"""A `gateway.provision.backend.Backend` that runs instances in a Kubernetes cluster.

What runs is read from the cluster, so that the next leader finds every instance as it is. An
instance is UP while its Deployment asks for a pod; whether it can serve, its worker reports. What
keeps it from running is the status's reason. A container that ends is started again by Kubernetes;
an instance that stays unhealthy is ended by the planner (`fail`): its Deployment is set to 0 pods,
and it is DOWN as soon as no pod of it is left.

Each instance has a goal, which one task carries out, in order and until it is reached: calls that
fail for a passing reason are repeated; what Kubernetes refuses makes the instance DOWN for good.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Any

from gateway.domain.model import Instance
from gateway.provision.backend import InstanceStatus, LaunchSpec, OnChange, RunState
from gateway.provision.kubernetes.client import (
    DEPLOYMENTS,
    PODS,
    UNAUTHORIZED,
    ClusterLogin,
    KubernetesApi,
    KubernetesError,
)
from gateway.provision.kubernetes.follower import ObjectFollower
from gateway.provision.kubernetes.manifests import (
    FAILURE_ANNOTATION,
    FUNCTION_LABEL,
    INSTANCE_LABEL,
    VERSION_LABEL,
    Manifest,
    PodOptions,
    deployment,
    disruption_budget,
    name_of,
    pull_secret,
    record_in,
    secret,
    selector_of,
)
from gateway.provision.kubernetes.status import log_tail, observe, unix_seconds
from gateway.provision.launch import LaunchError
from runtime.events import emit
from runtime.tasks import spawn

RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
FAIL_GRACE_S = 1
"""Grace period of the pods of an instance that is ended at once."""
_NOT_FOUND = 404
_MIN_SECRET_CHARS = 4

_log = logging.getLogger("gateway.provision")


class Goal(Enum):
    """What is to be done with an instance."""

    NOTHING = "nothing"
    RUN = "run"
    END = "end"
    """Set its Deployment to 0 pods and delete those that there are."""
    REMOVE = "remove"


class _Instance:
    """One instance, from its start, or from when it was found in the cluster, to its removal."""

    def __init__(self, instance_id: str, function_id: str, version_id: str, since: float) -> None:
        self.instance_id = instance_id
        self.function_id = function_id
        self.version_id = version_id
        self.launch: LaunchSpec | None = None
        self.record: Instance | None = None
        self.goal = Goal.NOTHING
        self.goal_changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.is_removed = False
        """Whether it was asked to be removed."""
        self.failure = ""
        """Why it was ended, or was not started."""
        self.is_final = False
        self.is_refused = False
        """Whether it could not be started."""
        self.trouble = ""
        """Why the goal is not reached yet."""
        self.applied: tuple[str, int] | None = None
        """Uid and generation of the Deployment as last changed here, until they are reported."""
        self.status = InstanceStatus(instance_id, RunState.UP, since)


class KubernetesBackend:
    """Runs instances in one namespace. Call `open` first and `close` last.

    ``clock`` returns Unix seconds.
    """

    def __init__(
        self, login: ClusterLogin, options: PodOptions, clock: Callable[[], float] = time.time
    ) -> None:
        self._options = options
        self._clock = clock
        self._api = KubernetesApi(login)
        selector = selector_of(options.cluster)
        self._deployments = ObjectFollower(
            self._api, DEPLOYMENTS, selector, self._handle_object, self._handle_result
        )
        self._pods = ObjectFollower(
            self._api, PODS, selector, self._handle_object, self._handle_result
        )
        self._pod_names: dict[str, set[str]] = {}
        self._instances: dict[str, _Instance] = {}
        self._listener: OnChange | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._trouble = ""

    async def open(self) -> None:
        """Log in and begin to follow the cluster. Raises `KubernetesError`."""
        await self._api.open()
        self._tasks = [
            spawn(one.run(), "provision.kubernetes") for one in (self._deployments, self._pods)
        ]

    async def close(self) -> None:
        """Stop following. Instances go on running."""
        tasks = [*self._tasks, *(one.task for one in self._instances.values() if one.task)]
        for task in tasks:
            task.cancel()
        # Before the tasks have ended: a connection that is in use is aborted and waited for. One
        # whose task was cancelled is out of the client's hands, and ends with a TLS shutdown for
        # which nobody waits.
        await self._api.close()
        if tasks:
            await asyncio.wait(tasks)

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` whenever the status of an instance has changed."""
        self._listener = on_change

    def is_known(self, cluster: str) -> bool:  # noqa: ARG002 - there is but one
        """Whether the cluster has been read."""
        return self._deployments.is_loaded and self._pods.is_loaded

    async def adopt(self) -> None:
        """Do nothing: instances belong to the cluster, and each leader finds them there."""

    def release(self) -> None:
        """Do nothing: they go on without this process."""

    def record(self, instance_id: str) -> Instance | None:
        """Return the record with which an instance was started, from its Deployment."""
        one = self._instances.get(instance_id)
        return None if one is None else one.record

    def version_ids(self) -> Iterable[tuple[str, str]]:
        """Return nothing: no instance belongs to this process, nor ends with its leadership."""
        return ()

    def statuses(self, version_id: str) -> Mapping[str, InstanceStatus]:
        """Return the statuses of one version's instances, by instance id."""
        return {
            instance_id: one.status
            for instance_id, one in self._instances.items()
            if one.version_id == version_id
        }

    async def start(self, launch: LaunchSpec) -> None:
        """Start an instance that is new or DOWN. Do nothing for any other."""
        record = launch.instance
        one = self._instances.get(record.instance_id)
        if one is None:
            one = _Instance(
                record.instance_id, record.function_id, record.version_id, self._clock()
            )
            self._instances[record.instance_id] = one
        elif one.status.state is not RunState.DOWN:
            return
        one.launch, one.record = launch, record
        one.failure, one.is_final, one.is_refused = "", False, False
        self._set_goal(one, Goal.RUN)

    def stop(self, instance_id: str, grace_s: float) -> None:  # noqa: ARG002 - the pod has its own
        """Remove an instance: its pod has the grace with which it was started.

        It is dropped once no pod of it is left.
        """
        one = self._instances.get(instance_id)
        if one is not None and not one.is_removed:
            one.is_removed = True
            self._set_goal(one, Goal.REMOVE)

    def fail(self, instance_id: str, reason: str) -> None:
        """End an unhealthy instance at once; it becomes DOWN."""
        one = self._instances.get(instance_id)
        if one is None or one.is_removed or one.status.state is not RunState.UP:
            return
        if one.goal is not Goal.END:
            one.failure = f"{reason}\n{self.log_tail(instance_id)}".strip()
            self._set_goal(one, Goal.END)

    def log_tail(self, instance_id: str) -> str:
        """Return the last lines of the function's container before it ended; empty if it runs."""
        one = self._instances.get(instance_id)
        return "" if one is None else self._masked(one, log_tail(self._pods_of(instance_id)))

    # The cluster's reports

    def _handle_object(self, found: Manifest) -> None:
        """Take a Deployment or a pod that is new, changed or gone."""
        meta = found["metadata"]
        labels = meta.get("labels") or {}
        instance_id = labels.get(INSTANCE_LABEL)
        if not instance_id or VERSION_LABEL not in labels or FUNCTION_LABEL not in labels:
            return
        if found.get("kind", "") == "Pod" or "containers" in found.get("spec", {}):
            names = self._pod_names.setdefault(instance_id, set())
            if meta["name"] in self._pods.objects:
                names.add(meta["name"])
            else:
                names.discard(meta["name"])
                if not names:
                    del self._pod_names[instance_id]
        one = self._instances.get(instance_id)
        if one is None:
            is_there = (
                meta["name"] in self._deployments.objects or meta["name"] in self._pods.objects
            )
            if not is_there:
                return
            one = self._instances[instance_id] = _Instance(
                instance_id,
                labels[FUNCTION_LABEL],
                labels[VERSION_LABEL],
                unix_seconds(meta.get("creationTimestamp")) or self._clock(),
            )
            self._tell(one)
        if one.record is None:
            one.record = record_in(found)
        self._refresh(one)

    def _handle_result(self, error: KubernetesError | None) -> None:
        """Log when the cluster cannot be read, and when it can again; look at all when it was."""
        trouble = "" if error is None else str(error)
        if trouble and not self._trouble:
            emit(
                _log,
                "kubernetes.unreadable",
                logging.WARNING,
                cluster=self._options.cluster,
                error=trouble,
            )
        elif self._trouble and not trouble:
            emit(_log, "kubernetes.read", cluster=self._options.cluster)
        self._trouble = trouble
        if error is None:
            for one in list(self._instances.values()):
                self._refresh(one)

    def _tell(self, one: _Instance) -> None:
        if self._listener is not None:
            self._listener(one.function_id, one.version_id)

    def _pods_of(self, instance_id: str) -> list[Manifest]:
        names = self._pod_names.get(instance_id, ())
        return [self._pods.objects[name] for name in names if name in self._pods.objects]

    def _refresh(self, one: _Instance) -> None:
        """Set the status from what is known now; drop an instance of which nothing is left."""
        found = self._deployments.objects.get(name_of(one.instance_id))
        if one.applied is not None and found is not None:
            uid, generation = one.applied
            meta = found["metadata"]
            if meta["uid"] != uid or meta.get("generation", 0) >= generation:
                one.applied = None
        if one.is_refused and not one.is_removed:
            self._set_status(one, RunState.DOWN, one.failure, is_final=one.is_final)
            return
        if not self.is_known(self._options.cluster):
            return
        observed = observe(found, self._pods_of(one.instance_id), self._clock())
        is_busy = one.goal is not Goal.NOTHING or one.applied is not None
        if one.is_removed:
            if observed is None and not is_busy:
                del self._instances[one.instance_id]
                self._tell(one)
            else:
                self._set_status(one, RunState.STOPPING)
        elif is_busy:
            self._set_status(one, RunState.UP, one.trouble)
        elif observed is None:
            del self._instances[one.instance_id]
            self._tell(one)
        else:
            reason = self._masked(one, observed.reason)
            self._set_status(one, observed.state, reason, is_final=observed.is_final)

    def _set_status(
        self, one: _Instance, state: RunState, reason: str = "", *, is_final: bool = False
    ) -> None:
        status = InstanceStatus(one.instance_id, state, one.status.since, reason, is_final)
        if status == one.status:
            return
        if state is not one.status.state:
            status = replace(status, since=self._clock())
        one.status = status
        self._tell(one)

    def _masked(self, one: _Instance, text: str) -> str:
        """Mask the values of secrets, as far as this process knows them."""
        for value in one.launch.hidden() if one.launch is not None else ():
            if len(value) >= _MIN_SECRET_CHARS:
                text = text.replace(value, "***")
        return text

    # Goals

    def _set_goal(self, one: _Instance, goal: Goal) -> None:
        one.goal = goal
        one.trouble = ""
        one.goal_changed.set()
        if one.task is None or one.task.done():
            one.task = spawn(self._reach_goal(one), "provision.kubernetes")
        self._refresh_now(one)

    def _refresh_now(self, one: _Instance) -> None:
        """Set the status of a new goal, also while the cluster has not been read."""
        if one.is_removed:
            self._set_status(one, RunState.STOPPING)
        else:
            self._set_status(one, RunState.UP, one.trouble)

    async def _reach_goal(self, one: _Instance) -> None:
        """Carry out the goal, and any that replaces it, until it is reached."""
        delay_s = RETRY_S
        while (goal := one.goal) is not Goal.NOTHING:
            one.goal_changed.clear()
            login = self._api.logins
            try:
                await self._carry_out(one, goal)
            except LaunchError as error:
                self._refuse(one, goal, str(error))
            except KubernetesError as error:
                if goal is Goal.RUN and error.is_permanent:
                    self._refuse(one, goal, str(error))
                elif goal is Goal.REMOVE and error.is_permanent and self._has_nothing_of(one):
                    # It was refused at the start already, as was its removal now.
                    one.trouble = ""
                else:
                    one.trouble = str(error)
                    self._refresh(one)
                    await self._pause(one, delay_s)
                    delay_s = min(2 * delay_s, LONGEST_RETRY_S)
                    if error.status == UNAUTHORIZED:
                        # Why that fails, the next attempt tells, and the followers log.
                        with suppress(KubernetesError):
                            await self._api.log_in_again(login)
                    continue
            delay_s = RETRY_S
            if one.goal is goal:
                one.goal = Goal.NOTHING
        self._refresh(one)

    def _has_nothing_of(self, one: _Instance) -> bool:
        is_known = self.is_known(self._options.cluster)
        return is_known and name_of(one.instance_id) not in self._deployments.objects

    async def _pause(self, one: _Instance, delay_s: float) -> None:
        """Wait, but not if the goal changes."""
        try:
            async with asyncio.timeout(delay_s):
                await one.goal_changed.wait()
        except TimeoutError:
            return

    def _refuse(self, one: _Instance, goal: Goal, reason: str) -> None:
        if one.goal is goal:
            one.failure, one.is_final, one.is_refused = reason, True, True

    async def _carry_out(self, one: _Instance, goal: Goal) -> None:
        """Raises `KubernetesError` and `LaunchError`."""
        name = name_of(one.instance_id)
        if goal is Goal.RUN and one.launch is not None:
            await self._run(one, one.launch)
        elif goal is Goal.END:
            await self._end(one, name)
        elif goal is Goal.REMOVE:
            one.applied = None
            await self._api.delete(DEPLOYMENTS, name)

    async def _run(self, one: _Instance, launch: LaunchSpec) -> None:
        """Make the Deployment with no pods, then what they need, then ask for one.

        A leader that dies in between leaves a Deployment without pods: an instance that is DOWN.
        """
        options = self._options
        owner = await self._api.apply(deployment(launch, options, 0))
        await self._api.apply(secret(launch, options, owner))
        if (logins := pull_secret(launch, options, owner)) is not None:
            await self._api.apply(logins)
        owners = {owner["metadata"]["uid"]: owner}
        for found in self._deployments.objects.values():
            labels = found["metadata"].get("labels") or {}
            if labels.get(VERSION_LABEL) == one.version_id:
                owners[found["metadata"]["uid"]] = found
        await self._api.apply(disruption_budget(launch, options, owners.values()))
        self._note(one, await self._api.apply(deployment(launch, options, 1)))

    async def _end(self, one: _Instance, name: str) -> None:
        change: dict[str, Any] = {
            "metadata": {"annotations": {FAILURE_ANNOTATION: one.failure}},
            "spec": {"replicas": 0},
        }
        try:
            self._note(one, await self._api.merge(DEPLOYMENTS, name, change))
        except KubernetesError as error:
            if error.status != _NOT_FOUND:
                raise
            one.applied = None
        for pod in self._pods_of(one.instance_id):
            await self._api.delete(PODS, pod["metadata"]["name"], FAIL_GRACE_S)

    def _note(self, one: _Instance, changed: Manifest) -> None:
        """Remember a Deployment's generation: older reports say nothing about the instance."""
        meta = changed["metadata"]
        one.applied = (meta["uid"], meta.get("generation", 0))
