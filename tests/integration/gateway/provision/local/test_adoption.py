"""Instances that one backend has left and another one finds, with real processes."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.domain.model import VersionDetails
from gateway.provision.backend import LaunchSpec, RunState
from gateway.provision.local.backend import ProcessBackend, ProcessOptions
from gateway.provision.local.orphans import kill_orphans
from gateway.provision.local.processes import InstanceProcess, read_identity, state_of
from tests.support.deployments import FUNCTION_ID, VERSION_ID, gpu_spec, instance
from tests.support.waiting import PATIENCE_S, until

SLEEP = "import time; time.sleep(600)"
COUNTS_SIGNALS = """
import pathlib, signal, sys, time
file = pathlib.Path(sys.argv[1])
def count(number, frame):
    file.write_text(file.read_text() + "x")
signal.signal(signal.SIGTERM, count)
file.write_text("")
time.sleep(600)
"""


def options(folder: Path, worker: tuple[str, ...] = ("-c", SLEEP)) -> ProcessOptions:
    return ProcessOptions(
        folder, lambda cluster, image: "http://gpu.local:9000", worker=(sys.executable, *worker)
    )


async def opened(chosen: ProcessOptions) -> ProcessBackend:
    backend = ProcessBackend(chosen)
    await backend.open()
    return backend


@asynccontextmanager
async def left_behind(
    folder: Path, worker: tuple[str, ...] = ("-c", SLEEP)
) -> AsyncIterator[ProcessBackend]:
    """Start the instance ``i1`` at a backend that leaves it, and end it after the block."""
    backend = await opened(options(folder, worker))
    details = VersionDetails(FUNCTION_ID, VERSION_ID, "acme", "", {"name": "echo"})
    try:
        await backend.start(LaunchSpec(instance(), gpu_spec(), details, {"token": "hush-hush"}))
        await until(lambda: read_identity(worker_file(folder)))
        yield backend
    finally:
        await backend.close()
        kill_orphans(folder)


def worker_file(folder: Path) -> Path:
    return folder / "running" / "i1" / "worker.pid"


def pid_in(folder: Path) -> int:
    identity = read_identity(worker_file(folder))
    assert identity is not None
    return identity.pid


def status_of(backend: ProcessBackend) -> RunState | None:
    status = backend.statuses(VERSION_ID).get("i1")
    return None if status is None else status.state


async def test_only_its_owner_reads_the_folder_of_an_instance(tmp_path: Path) -> None:
    async with left_behind(tmp_path):
        for path in (tmp_path / "running", tmp_path / "running" / "i1"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "running/i1/secrets.json").stat().st_mode) == 0o600


async def test_of_two_that_believe_one_has_the_instance(tmp_path: Path) -> None:
    async with left_behind(tmp_path) as first:
        second = await opened(options(tmp_path))
        await second.adopt()
        assert second.instance_ids() == set()
        first.release()
        await second.adopt()
        assert status_of(second) is RunState.UP
        await first.adopt()
        assert first.instance_ids() == set()
        # The first is still the parent: it takes the exit code, the second sees the end.
        os.kill(pid_in(tmp_path), signal.SIGKILL)
        await until(lambda: status_of(second) is RunState.DOWN)
        await second.close()


async def test_what_has_ended_meanwhile_is_down_and_its_exit_code_not_known(tmp_path: Path) -> None:
    async with left_behind(tmp_path) as first:
        pid = pid_in(tmp_path)
        first.release()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: state_of(pid) is None)
        second = await opened(options(tmp_path))
        await second.adopt()
        await until(lambda: status_of(second) is RunState.DOWN)
        reason = second.statuses(VERSION_ID)["i1"].reason
        assert reason.startswith("the worker agent ended with a code that is not known")
        await second.close()
        assert os.listdir(tmp_path / "running") == []


@pytest.mark.parametrize("change", ["start_time", "boot", "namespace"])
async def test_a_process_that_has_got_a_recorded_id_is_left_alone(
    tmp_path: Path, change: str
) -> None:
    async with left_behind(tmp_path) as first:
        first.release()
        identity = read_identity(worker_file(tmp_path))
        assert identity is not None
        with subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", SLEEP], start_new_session=True
        ) as stranger:
            state = state_of(stranger.pid)
            assert state is not None
            of_stranger = identity._replace(pid=stranger.pid, start_time=state.start_time)
            other: dict[str, object] = {"start_time": 1, "boot": "b", "namespace": "n"}
            changed = of_stranger._replace(**{change: other[change]})  # type: ignore[arg-type]
            worker_file(tmp_path).write_text(json.dumps(changed))
            second = await opened(options(tmp_path))
            await second.adopt()
            await until(lambda: status_of(second) is RunState.DOWN)
            await second.close()
            assert stranger.poll() is None
            stranger.kill()
        os.kill(identity.pid, signal.SIGKILL)


async def test_a_process_that_leads_no_session_is_not_the_recorded_one(tmp_path: Path) -> None:
    async with left_behind(tmp_path):
        identity = read_identity(worker_file(tmp_path))
        assert identity is not None
        with subprocess.Popen([sys.executable, "-c", SLEEP]) as stranger:  # noqa: ASYNC220
            state = state_of(stranger.pid)
            assert state is not None
            changed = identity._replace(pid=stranger.pid, start_time=state.start_time)
            (tmp_path / "other").write_text(json.dumps(changed))
            assert InstanceProcess.find(tmp_path / "other").ended.is_set()
            stranger.kill()


async def test_a_record_of_another_schema_is_not_adopted_and_its_processes_end(
    tmp_path: Path,
) -> None:
    async with left_behind(tmp_path) as first:
        pid = pid_in(tmp_path)
        first.release()
        record = tmp_path / "running" / "i1" / "instance.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "schema": 2}))
        second = await opened(options(tmp_path))
        await second.adopt()
        assert second.instance_ids() == set()
        await until(lambda: state_of(pid) is None)
        assert os.listdir(tmp_path / "running") == []


async def test_a_crash_while_starting_leaves_an_instance_that_is_down(tmp_path: Path) -> None:
    """Its folder is there, and of its processes the worker was not started."""
    async with left_behind(tmp_path) as first:
        pid = pid_in(tmp_path)
        first.release()
        os.kill(pid, signal.SIGKILL)
        worker_file(tmp_path).unlink()
        unfinished = tmp_path / "running" / "i2.new"
        unfinished.mkdir()
        second = await opened(options(tmp_path))
        await second.adopt()
        await until(lambda: status_of(second) is RunState.DOWN)
        assert os.listdir(tmp_path / "running") == ["i1"]
        await second.close()


async def test_a_full_disk_is_told_and_the_instance_starts_when_there_is_room(
    tmp_path: Path,
) -> None:
    async with left_behind(tmp_path) as backend:
        os.kill(pid_in(tmp_path), signal.SIGKILL)
        await until(lambda: status_of(backend) is RunState.DOWN)
        record = tmp_path / "running" / "i1" / "instance.json.new"
        record.symlink_to("/dev/full")
        details = VersionDetails(FUNCTION_ID, VERSION_ID, "acme", "", {"name": "echo"})
        launch = LaunchSpec(instance(), gpu_spec(), details)

        def reason() -> str:
            return backend.statuses(VERSION_ID)["i1"].reason

        await backend.start(launch)
        await until(reason, lambda text: text == "cannot be started: No space left on device")
        assert not backend.statuses(VERSION_ID)["i1"].is_final
        record.unlink()
        await backend.start(launch)
        await until(lambda: read_identity(worker_file(tmp_path)))
        assert status_of(backend) is RunState.UP


async def test_a_worker_that_was_told_to_stop_is_not_told_again(tmp_path: Path) -> None:
    """A second SIGTERM would make it abandon its requests."""
    count = tmp_path / "signals"
    folder = tmp_path / "instances"
    async with left_behind(folder, ("-c", COUNTS_SIGNALS, str(count))) as first:
        await until(count.exists)
        first.stop("i1", PATIENCE_S)
        await until(lambda: count.read_text() == "x")
        await until((folder / "running" / "i1" / "stopping").exists)
        pid = pid_in(folder)
        first.release()
        second = await opened(options(folder))
        await second.adopt()
        assert status_of(second) is RunState.STOPPING
        second.stop("i1", 0.2)
        await until(lambda: status_of(second) is None)
        assert count.read_text() == "x"
        assert state_of(pid) is None


async def test_an_adopted_log_keeps_its_bound(tmp_path: Path) -> None:
    chatty = "import time; print('x' * (17 << 20), flush=True); time.sleep(0.1)\n"
    chatty += "while True: print('later', flush=True); time.sleep(0.05)"
    async with left_behind(tmp_path, ("-c", chatty)) as first:
        log = tmp_path / "running" / "i1" / "worker.log"
        await until(lambda: log.stat().st_size > 17 << 20)
        first.release()
        second = await opened(options(tmp_path))
        await second.adopt()
        await until(lambda: "later" in second.log_tail("i1"))
        assert log.stat().st_size < 1 << 20
        await second.close()
