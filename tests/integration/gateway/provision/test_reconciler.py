"""The reconciler with a real nats-server and real processes, any of which may be killed."""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import (
    Deployment,
    DeploymentKey,
    DetailsKey,
    FunctionVersion,
    GpuSpec,
    Instance,
    InstanceKey,
    Phase,
    Record,
    Removed,
    VersionDetails,
    VersionKey,
    VersionState,
)
from gateway.errors import Conflict, GatewayError, StoreUnavailable
from gateway.provision.local.orphans import kill_orphans
from gateway.provision.local.processes import members_of, read_identity
from gateway.provision.planner import Policy
from gateway.provision.undeploy_notices import UndeployNotices
from gateway.provision.wake_requests import WakePublisher
from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.nats.kv import NatsStore
from gateway.store.records import Store
from queueing.interface import QueueUnavailable
from queueing.nats.jetstream import JetStream, StreamSettings
from runtime.ids import new_uuid
from tests.support.deployments import gpu_spec
from tests.support.idle_backend import running_fleet
from tests.support.nats_server import NatsServer, nats_server
from tests.support.provisioner import PROVISION, REGION, Provisioner, provisioning
from tests.support.queues import request_subject
from tests.support.stand_in_agent import UNTIL_FINISH, finish_subject
from tests.support.waiting import PATIENCE_S, until
from wire.ids import FunctionId, VersionId

__all__ = ["nats_server"]

SOON_S = PATIENCE_S / 4
"""Far less than any lease, and enough for a busy machine."""


@pytest.fixture
async def one(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Provisioner]:
    async with provisioning(nats_server.url, tmp_path / "instances") as provisioner:
        yield provisioner


class Version:
    """One version in the store, deployed and undeployed as the API does it."""

    def __init__(self, provisioner: Provisioner, image: str = "server") -> None:
        self.provisioner = provisioner
        self.store = provisioner.store
        self.picture = provisioner.picture
        self.function_id = FunctionId(new_uuid())
        self.version_id = VersionId(new_uuid())
        self.image = image
        self.environment: list[dict[str, str]] = []
        self.spec: dict[str, object] = {}
        self.secret_names: tuple[str, ...] = ()
        self.deployment_id = ""

    async def register(self) -> None:
        ids = self.function_id, self.version_id, "acme"
        spec = {
            "containerImage": self.image,
            "containerEnvironment": self.environment,
            **self.spec,
        }
        await self.store.put(VersionDetails(*ids, "", spec, self.secret_names), 0)
        await self.store.put(FunctionVersion(*ids, "one", VersionState.INACTIVE), 0)

    async def deploy(self, *specs: GpuSpec, within_s: float = 60) -> None:
        self.deployment_id = new_uuid()
        await self.store.put(
            Deployment(
                deployment_id=self.deployment_id,
                function_id=self.function_id,
                version_id=self.version_id,
                account="acme",
                specs=specs or (gpu_spec(),),
                created_at="",
                updated_at="",
                deadline_at=int(time.time() + within_s),
            )
        )

    async def drain(self, within_s: float) -> None:
        deployment = await self.deployment()
        assert deployment is not None
        await self.store.put(replace(deployment, draining_until=int(time.time() + within_s)))

    async def undeploy(self) -> None:
        await self.store.delete(DeploymentKey(self.function_id, self.version_id))

    async def deployment(self) -> Deployment | None:
        found = await self.store.get(DeploymentKey(self.function_id, self.version_id))
        if found is None:
            return None
        assert isinstance(found[0], Deployment)
        return found[0]

    async def enqueue(self, payload: bytes) -> None:
        """Publish one request to the queue, which is created if there is none."""
        await JetStream(self.provisioner.data).ensure(REGION, self.version_id, StreamSettings())
        subject = request_subject(REGION, self.version_id, new_uuid())
        client = self.store.connection.connected_client()
        await client.jetstream().publish(subject, payload)

    async def finish(self) -> None:
        """Have the agents acknowledge all `UNTIL_FINISH` requests, present and future."""
        client = self.store.connection.connected_client()
        await client.publish(finish_subject(self.version_id))

    @property
    def state(self) -> VersionState:
        version = self.provisioner.reconciler.version(self.version_id)
        return VersionState.INACTIVE if version is None else version.state

    @property
    def instances(self) -> list[Instance]:
        version = self.provisioner.reconciler.version(self.version_id)
        return [] if version is None else version.instances()

    @property
    def health(self) -> list[str]:
        version = self.provisioner.reconciler.version(self.version_id)
        deployment = None if version is None else version.deployment
        return [] if deployment is None else [info.error for info in deployment.health]

    async def until(self, state: VersionState, timeout_s: float = PATIENCE_S) -> None:
        await self.picture.until(lambda: self.state is state, timeout_s)

    async def stored_state(self) -> VersionState:
        found = await self.store.get(VersionKey(self.function_id, self.version_id))
        assert found is not None
        assert isinstance(found[0], FunctionVersion)
        return found[0].state


async def deployed(provisioner: Provisioner, *specs: GpuSpec, **more: Any) -> Version:
    version = Version(provisioner, more.pop("image", "server"))
    for name, value in more.items():
        setattr(version, name, value)
    await version.register()
    await version.deploy(*specs)
    return version


def pids_of(provisioner: Provisioner) -> set[int]:
    """Return the processes of all instances, with those that they have started."""
    return pids_under(str(provisioner.folder))


def pids_under(folder: str) -> set[int]:
    """Return the recorded processes below ``folder``, and all others of their sessions."""
    records = [read_identity(file) for file in Path(folder).glob("running/*/*.pid")]
    return members_of({record.pid for record in records if record is not None})


async def until_gone(pids: set[int], timeout_s: float = PATIENCE_S) -> None:
    """Wait until processes have ended; they need not be children of this one."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            ended = asyncio.Event()
            loop.add_reader(descriptor, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)


async def test_a_deployment_starts_and_stops_its_instances(one: Provisioner) -> None:
    version = await deployed(one, gpu_spec("s1", 2, 2))
    await version.until(VersionState.DEPLOYING)
    await version.until(VersionState.ACTIVE)
    assert await version.stored_state() is VersionState.ACTIVE
    assert len({instance.instance_id for instance in version.instances}) == 2
    pids = pids_of(one)
    assert len(pids) >= 2
    await version.undeploy()
    await version.until(VersionState.INACTIVE)
    await version.picture.until(lambda: not version.instances)
    await until_gone(pids)


@pytest.mark.parametrize("half", [b"tiny_server", b"stand_in_agent"])
async def test_a_killed_instance_is_noticed_at_once_and_restarted(
    one: Provisioner, half: bytes
) -> None:
    version = await deployed(one)
    await version.until(VersionState.ACTIVE)
    (before,) = version.instances
    (folder,) = one.folder.glob(f"*/{before.instance_id}")
    (folder / "mark").touch()
    (pid,) = [entry for entry in pids_of(one) if half in cmdline(entry)]
    os.kill(pid, signal.SIGKILL)
    await version.until(VersionState.DEGRADED, SOON_S)
    await version.until(VersionState.ACTIVE)
    (after,) = version.instances
    assert after.instance_id == before.instance_id
    # The backend has restarted it: the folder of an instance that it drops is deleted.
    assert (folder / "mark").exists()


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


async def test_a_crash_loop_is_slowed_down_and_ends_in_error_with_the_log(
    one: Provisioner,
) -> None:
    began = time.monotonic()
    version = await deployed(one, image="crash", secret_names=("TOKEN",))
    await version.until(VersionState.ERROR)
    assert time.monotonic() - began >= PROVISION["restart_first_s"] * 3
    deployment = await version.deployment()
    assert deployment is not None
    (health,) = deployment.health
    assert "the inference server ended with code 7" in health.error
    assert "no CUDA device" in health.error
    assert "hush-hush" not in health.error
    await version.picture.until(lambda: not version.instances)
    assert await version.stored_state() is VersionState.ERROR
    await version.undeploy()
    await version.until(VersionState.INACTIVE)


async def test_an_instance_that_can_never_start_fails_at_once_with_the_reason(
    one: Provisioner,
) -> None:
    version = await deployed(one, image="unheard of")
    await version.until(VersionState.ERROR)
    deployment = await version.deployment()
    assert deployment is not None
    assert "has no command for the image 'unheard of'" in deployment.health[0].error
    other = await deployed(one, image="missing")
    await other.until(VersionState.ERROR)
    deployment = await other.deployment()
    assert deployment is not None
    assert "No such file or directory: /nowhere/to/be/found" in deployment.health[0].error


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"helmChart": "https://charts/x.tgz"}, "it cannot run a Helm chart"),
        ({"models": [{"name": "m"}]}, "it cannot run models without one (containerImage)"),
        ({"containerArgs": "x" * 1_000_000}, "at most 131,071 characters, not 1,000,000"),
        ({"containerArgs": "\0"}, "contains a NUL"),
    ],
)
async def test_a_function_that_cannot_run_here_fails_at_once_with_the_reason(
    one: Provisioner, spec: dict[str, object], reason: str
) -> None:
    version = await deployed(one, image="server" if "containerArgs" in spec else "", spec=spec)
    began = time.monotonic()
    await version.until(VersionState.ERROR)
    assert time.monotonic() - began < PATIENCE_S / 4
    deployment = await version.deployment()
    assert deployment is not None
    assert reason in deployment.health[0].error


async def test_an_instance_whose_worker_is_silent_is_not_shown_as_running(one: Provisioner) -> None:
    version = await deployed(one)
    await version.picture.until(
        lambda: [instance.phase for instance in version.instances] == [Phase.RUNNING]
    )
    (agent,) = [pid for pid in pids_of(one) if b"stand_in_agent" in cmdline(pid)]
    os.kill(agent, signal.SIGSTOP)
    try:
        await version.until(VersionState.DEGRADED)
        await version.picture.until(
            lambda: [instance.phase for instance in version.instances] == [Phase.STARTING], SOON_S
        )
        await version.picture.until(
            lambda: version.health == ["its worker is not heard of"], SOON_S
        )
    finally:
        os.kill(agent, signal.SIGCONT)
    await version.until(VersionState.ACTIVE)
    await version.picture.until(
        lambda: [instance.phase for instance in version.instances] == [Phase.RUNNING], SOON_S
    )
    await version.picture.until(lambda: not version.instances[0].error)


class RefusingStore(NatsStore):
    """A store whose next writes of a version's state raise the given errors, last one first."""

    def __init__(self, connection: NatsStoreConnection, *errors: GatewayError) -> None:
        super().__init__(connection)
        self.errors = [*errors]

    async def put(self, record: Record, revision: int | None = None) -> int:
        if isinstance(record, FunctionVersion) and self.errors:
            raise self.errors.pop()
        return await super().put(record, revision)


async def test_a_conflict_is_logged_as_debug_and_an_unavailable_store_as_warning(
    nats_server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gateway.provision")
    refusing: list[RefusingStore] = []

    def store_of(connection: NatsStoreConnection) -> Store:
        refusing.append(RefusingStore(connection, Conflict(), StoreUnavailable()))
        return refusing[0]

    async with provisioning(nats_server.url, tmp_path, store_of) as one:
        version = await deployed(one)
        await version.until(VersionState.ACTIVE)
    assert not refusing[0].errors
    postponed = [entry for entry in caplog.records if entry.message == "reconcile.postponed"]
    warnings = [entry for entry in postponed if entry.levelno == logging.WARNING]
    assert [entry.fields["error"] for entry in warnings] == [str(StoreUnavailable())]  # type: ignore[attr-defined]
    assert str(Conflict()) in [
        entry.fields["error"]  # type: ignore[attr-defined]
        for entry in postponed
        if entry.levelno == logging.DEBUG
    ]


async def test_the_deploy_deadline_ends_in_error(one: Provisioner) -> None:
    version = Version(one, "server")
    version.environment = [{"key": "PYTHONPATH", "value": "/nowhere"}]
    await version.register()
    # Only the agent starts; the inference server cannot.
    await version.deploy(gpu_spec(), within_s=0)
    await version.until(VersionState.ERROR)
    deployment = await version.deployment()
    assert deployment is not None
    assert deployment.health[0].error


async def test_secrets_are_in_a_file_that_only_its_owner_can_read(one: Provisioner) -> None:
    version = await deployed(one, secret_names=("TOKEN",))
    await version.until(VersionState.ACTIVE)
    (file,) = one.folder.glob("*/*/secrets.json")
    assert file.read_text() == '{"TOKEN": "hush-hush"}'
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(b"hush-hush" in environment_of(pid) for pid in pids_of(one))
    await version.undeploy()
    await version.picture.until(lambda: not version.instances)
    assert not file.exists()


async def test_scaled_to_zero_the_first_request_starts_an_instance_and_waits_for_it(
    one: Provisioner,
) -> None:
    version = await deployed(one, gpu_spec("s1", 0, 1))
    await version.until(VersionState.ACTIVE)
    assert version.instances == []
    await version.enqueue(b"0.1")
    await version.picture.until(lambda: version.instances)
    await until_load(version, 0)
    # The request was served; after the idle time the instance is stopped.
    await version.picture.until(lambda: not version.instances)
    assert await version.stored_state() is VersionState.ACTIVE
    assert not pids_of(one)


async def test_a_wake_request_starts_an_instance_although_the_queue_is_empty(
    one: Provisioner,
) -> None:
    version = await deployed(one, gpu_spec("s1", 0, 1))
    await version.until(VersionState.ACTIVE)
    publisher = WakePublisher(one.broker.bus, asyncio.get_running_loop().time)
    # This version is unknown.
    publisher.publish(new_uuid())
    publisher.publish(version.version_id)
    await version.picture.until(lambda: version.instances)


async def test_waiting_requests_get_more_instances_up_to_the_maximum(
    one: Provisioner,
) -> None:
    version = await deployed(one, gpu_spec("s1", 1, 2, concurrency=4))
    await version.until(VersionState.ACTIVE)
    for _ in range(12):
        await version.enqueue(UNTIL_FINISH)
    most = 0

    def served_by_two() -> bool:
        nonlocal most
        most = max(most, len(version.instances))
        return sum(one.busy for one in version.instances) == 8

    await version.picture.until(served_by_two)
    await version.finish()
    await until_load(version, 0)
    await version.picture.until(lambda: len(version.instances) == 1)
    assert most == 2


async def until_load(version: Version, total: int) -> None:
    await until(
        lambda: version.provisioner.queues.load(version.version_id),
        lambda load: load.waiting + load.leased == total,
        what=f"{total} requests in the queue",
    )


async def test_a_graceful_undeploy_finishes_queued_requests_then_stops(one: Provisioner) -> None:
    ended: list[str] = []
    notices = UndeployNotices(one.broker.bus, ended.append)
    version = await deployed(one)
    await version.until(VersionState.ACTIVE)
    for _ in range(4):
        await version.enqueue(b"0.3")
    await version.drain(within_s=60)
    await version.until(VersionState.INACTIVE)
    assert version.instances
    await until_load(version, 0)
    assert ended == []
    await version.picture.until(lambda: not version.instances)
    await version.picture.until(lambda: not one.reconciler.is_planned(version.version_id))
    assert await version.deployment() is None
    assert version.version_id not in await one.queues.version_ids()
    notices.close()


async def test_a_graceful_undeploy_waits_for_calls_on_channels(one: Provisioner) -> None:
    version = await deployed(one)
    await version.until(VersionState.ACTIVE)
    calls, asked_at = 1, [0.0]

    def direct(version_id: str) -> int:
        asked_at.append(time.monotonic())
        return calls if version_id == version.version_id else 0

    one.provisioning.queues.count_direct(direct)
    await version.drain(within_s=60)
    await version.until(VersionState.INACTIVE)
    began = time.monotonic()
    settled_s = 3 * Policy().drain_settle_s
    await until(lambda: asked_at[-1], lambda at: at > began + settled_s, what="readings")
    assert version.instances
    calls = 0
    await version.picture.until(lambda: not version.instances)


async def test_a_drain_that_takes_too_long_is_ended(one: Provisioner) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    notices = UndeployNotices(one.broker.bus, ended.put_nowait)
    version = await deployed(one)
    await version.until(VersionState.ACTIVE)
    for _ in range(3):
        await version.enqueue(b"60")
    await version.drain(within_s=2)
    async with asyncio.timeout(PATIENCE_S):
        assert await ended.get() == version.version_id
    await version.picture.until(lambda: not one.reconciler.is_planned(version.version_id))
    assert await version.deployment() is None
    assert version.instances == []
    notices.close()


async def test_an_undeploy_without_grace_ends_queued_requests_at_once(one: Provisioner) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    notices = UndeployNotices(one.broker.bus, ended.put_nowait)
    version = await deployed(one, gpu_spec("s1", 0, 0))
    await version.until(VersionState.ACTIVE)
    await version.enqueue(b"1")
    await version.undeploy()
    async with asyncio.timeout(2):
        assert await ended.get() == version.version_id
    await version.picture.until(lambda: not one.reconciler.is_planned(version.version_id))
    assert version.version_id not in await one.queues.version_ids()
    notices.close()


async def test_the_maximum_is_respected_when_it_is_lowered(one: Provisioner) -> None:
    version = await deployed(one, gpu_spec("s1", 2, 2))
    await version.until(VersionState.ACTIVE)
    deployment = await version.deployment()
    assert deployment is not None
    await one.store.put(replace(deployment, specs=(gpu_spec("s1", 1, 1),)))
    await version.picture.until(lambda: len(version.instances) == 1)
    assert await version.stored_state() is VersionState.ACTIVE


class Removals:
    """Receives the removal of queues; the first call for each version fails."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        self._missed: set[str] = set()

    async def removed(self, version_id: str) -> None:
        if version_id not in self._missed:
            self._missed.add(version_id)
            raise QueueUnavailable
        self._heard.put_nowait(version_id)

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return await self._heard.get()


async def test_the_removal_of_a_queue_is_reported_until_that_succeeds(one: Provisioner) -> None:
    removals = Removals()
    one.provisioning.queues.on_removed(removals.removed)
    version = await deployed(one, gpu_spec("s1", 0, 0))
    await version.until(VersionState.ACTIVE)
    await version.undeploy()
    assert await removals.next() == version.version_id
    await version.picture.until(lambda: not one.reconciler.is_planned(version.version_id))


async def test_the_queue_of_a_version_deleted_without_a_leader_is_removed_by_the_next_one(
    one: Provisioner,
) -> None:
    await one.provisioning.stop()
    deleted, foreign = Version(one), Version(one)
    await deleted.register()
    for version in (deleted, foreign):
        await version.enqueue(b"1")
    await one.store.delete(DetailsKey(deleted.function_id, deleted.version_id))
    await one.store.delete(VersionKey(deleted.function_id, deleted.version_id))
    removals = Removals()
    async with running_fleet(one.store, one.data) as fleet:
        fleet.queues.on_removed(removals.removed)
        assert await removals.next() == deleted.version_id
        # A version that this store never had may belong to another system.
        assert await one.queues.version_ids() == [foreign.version_id]


def has_kind(changes: list[object], kind: type) -> bool:
    return any(isinstance(change, kind) for change in changes)


def was_removed(changes: list[object], kind: type) -> bool:
    """Return whether a record was removed whose key is a ``kind``."""
    return any(isinstance(change, Removed) and isinstance(change.key, kind) for change in changes)


def was_silent(changes: list[object]) -> bool:
    return any(
        isinstance(change, Instance) and change.phase is Phase.STARTING for change in changes
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_restart_of_nats_changes_nothing(nats_server: NatsServer, one: Provisioner) -> None:
    version = await deployed(one)
    await version.until(VersionState.ACTIVE)
    await version.picture.until(lambda: version.instances[0].phase is Phase.RUNNING)
    (before,) = version.instances
    pids = pids_of(one)
    heard: list[object] = []
    one.picture.listeners.append(heard.append)
    await nats_server.restart()
    # The store keeps instances in memory and has lost them; some may be back before that is seen.
    await version.picture.until(lambda: was_removed(heard, InstanceKey) or was_silent(heard))
    await version.picture.until(lambda: has_kind(heard, Instance))
    await version.picture.until(lambda: one.reconciler.is_leader)
    await version.until(VersionState.ACTIVE)
    assert pids_of(one) == pids
    assert [instance.instance_id for instance in version.instances] == [before.instance_id]
    stored = await one.store.get(InstanceKey(version.version_id, before.instance_id))
    assert stored is not None
    states = {change.state for change in heard if isinstance(change, FunctionVersion)}
    assert states <= {VersionState.ACTIVE, VersionState.DEGRADED}
    # nats-py leaves sockets of failed attempts open; another test must not report them.
    gc.collect()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_next_leader_adopts_the_instances_of_one_that_ends(
    nats_server: NatsServer, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "instances"
    child_file = tmp_path / "child"
    async with (
        leading_process(nats_server, folder) as leader,
        second_candidate(nats_server, folder) as second,
    ):
        environment = [{"key": "CHILD_FILE", "value": str(child_file)}]
        version = await deployed(second, image="stubborn", environment=environment)
        await version.until(VersionState.ACTIVE)
        assert not second.reconciler.is_leader
        (before,) = version.instances
        pids = pids_under(str(folder))
        assert int(child_file.read_text()) in pids
        states: list[object] = []
        second.picture.listeners.append(states.append)
        leader.send_signal(number)
        await leader.wait()
        await second.picture.until(second.backend.instance_ids, 10.0)
        assert pids_under(str(folder)) == pids
        assert [one.instance_id for one in version.instances] == [before.instance_id]
        assert not was_removed(states, InstanceKey)
        assert {one.state for one in states if isinstance(one, FunctionVersion)} <= {
            VersionState.ACTIVE
        }
        # It is managed as if it had been started here: an end is noticed, and it starts again.
        (agent,) = [pid for pid in pids if b"stand_in_agent" in cmdline(pid)]
        os.kill(agent, signal.SIGKILL)
        await second.picture.until(
            lambda: (
                "with a code that is not known" in "".join(one.error for one in version.instances)
            )
        )
        await until_gone(pids)
        await second.picture.until(
            lambda: [one.phase for one in version.instances] == [Phase.RUNNING]
        )
        assert [one.instance_id for one in version.instances] == [before.instance_id]
        last = pids_under(str(folder))
        await version.undeploy()
        await until_gone(last)
        await second.picture.until(lambda: not list((folder / "running").iterdir()))


async def test_what_was_undeployed_without_a_leader_is_ended_by_the_next_one(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    folder = tmp_path / "instances"
    async with provisioning(nats_server.url, folder, at_stop="keep") as first:
        version = await deployed(first)
        await version.until(VersionState.ACTIVE)
        pids = pids_of(first)
    assert pids_under(str(folder)) == pids
    second = Provisioner(nats_server.url, folder)
    await second.connect()
    version.store = second.store
    await version.undeploy()
    await second.start()
    await until_gone(pids)
    await second.stop()


async def test_while_another_machine_leads_instances_go_on_until_they_are_not_wanted(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    folder = tmp_path / "instances"
    async with provisioning(nats_server.url, folder, at_stop="keep") as first:
        version = await deployed(first)
        await version.until(VersionState.ACTIVE)
        (before,) = version.instances
        pids = pids_of(first)
    async with provisioning(nats_server.url, tmp_path / "far") as far:
        version.provisioner, version.store, version.picture = far, far.store, far.picture
        await far.picture.until(lambda: far.reconciler.is_leader)
        async with second_candidate(nats_server, folder) as near:
            await near.picture.until(lambda: near.backend.instance_ids() == {before.instance_id})
            assert not near.reconciler.is_leader
            await version.until(VersionState.ACTIVE)
            assert [one.instance_id for one in version.instances] == [before.instance_id]
            assert pids_under(str(folder)) == pids
            await version.undeploy()
            await until_gone(pids)
            await near.picture.until(lambda: not near.backend.instance_ids())
            await version.until(VersionState.INACTIVE)


async def test_a_paused_leader_leaves_its_instances_to_its_successor(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    folder = tmp_path / "instances"
    async with (
        leading_process(nats_server, folder) as first,
        second_candidate(nats_server, folder) as second,
    ):
        version = await deployed(second)
        await version.until(VersionState.ACTIVE)
        (before,) = version.instances
        pids = pids_under(str(folder))
        first.send_signal(signal.SIGSTOP)
        await second.picture.until(lambda: second.reconciler.is_leader, 10.0)
        assert not second.backend.instance_ids()
        assert version.state is VersionState.ACTIVE
        first.send_signal(signal.SIGCONT)
        await second.picture.until(lambda: second.backend.instance_ids() == {before.instance_id})
        assert pids_under(str(folder)) == pids
        assert [instance.instance_id for instance in version.instances] == [before.instance_id]
        assert version.state is VersionState.ACTIVE


@asynccontextmanager
async def leading_process(nats_server: NatsServer, folder: Path) -> AsyncIterator[Process]:
    """Run a candidate as a process that ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.provisioner", nats_server.url, str(folder)
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.wait()
        # It may have led again at the end, and what it starts outlives it.
        await asyncio.to_thread(kill_orphans, folder)


@asynccontextmanager
async def second_candidate(nats_server: NatsServer, folder: Path) -> AsyncIterator[Provisioner]:
    """Start a candidate once another one leads."""
    one = Provisioner(nats_server.url, folder)
    await one.connect()
    await until(lambda: one.store.get_raw("meta", "leader"), what="a leader's record")
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def test_a_stopped_reconciler_leaves_nothing_behind(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    folder = tmp_path / "instances"
    child_file = tmp_path / "child"
    async with provisioning(nats_server.url, folder) as one:
        version = await deployed(
            one,
            image="stubborn",
            environment=[{"key": "CHILD_FILE", "value": str(child_file)}],
        )
        await version.until(VersionState.ACTIVE)
        pids = pids_of(one)
        assert int(child_file.read_text()) in pids
        (instance,) = version.instances
    await until_gone(pids, SOON_S)
    assert list((folder / "running").iterdir()) == []
    async with provisioning(nats_server.url, tmp_path / "other") as other:
        # Its record was deleted with it: the next leader need not wait for its lease to expire.
        records = [entry.name for entry in await other.store.entries("instances")]
        assert not any(instance.instance_id in name for name in records)
