"""The process backend with the real worker agent, which gets the settings that it needs."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.domain.model import Instance, Phase, VersionDetails
from gateway.provision.backend import LaunchSpec, RunState
from gateway.provision.local.backend import ProcessBackend, ProcessOptions
from gateway.provision.queues import Queues
from queueing.nats.connection import NatsConnection
from queueing.nats.jetstream import JetStream, StreamSettings
from queueing.nats.login import ConnectionOptions
from runtime.ids import new_uuid
from tests.support.deployments import FUNCTION_ID, VERSION_ID, gpu_spec
from tests.support.nats_server import NatsServer, nats_server
from tests.support.provisioner import REGION, SERVER
from tests.support.queues import broker_on, request_subject
from tests.support.waiting import PATIENCE_S, Signal, until

__all__ = ["nats_server"]


def an_instance() -> Instance:
    return Instance(
        instance_id="one",
        deployment_id="d1",
        spec_id="s1",
        function_id=FUNCTION_ID,
        version_id=VERSION_ID,
        account="acme",
        gpu="L40S",
        instance_type="type-1",
        backend="local",
        phase=Phase.STARTING,
    )


async def test_a_server_that_runs_already_gets_a_worker_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import os, time; e = os.environ; print(e['WORKER_INFERENCE__HOST'], "
        "e['WORKER_INFERENCE__PORT'], e['WORKER_ADMIN__LISTEN'], flush=True); time.sleep(60)"
    )
    options = ProcessOptions(
        tmp_path / "instances",
        lambda cluster, image: "http://gpu.local:9000",
        worker=(sys.executable, "-c", script),
    )
    async with started(options) as backend:
        await until(lambda: "gpu.local 9000 127.0.0.1:0" in backend.log_tail("one"))
        (identity,) = (tmp_path / "instances").glob("running/one/*.pid")
        assert identity.name == "worker.pid"
        backend.stop("one", PATIENCE_S)
        await until(lambda: not backend.statuses(VERSION_ID))


async def test_a_script_whose_interpreter_is_missing_is_told_from_a_missing_script(
    tmp_path: Path,
) -> None:
    script = tmp_path / "serve"
    script.write_text("#!/nowhere/python\n")
    script.chmod(0o755)
    options = ProcessOptions(tmp_path / "instances", lambda cluster, image: f"process://{script}")
    async with started(options) as backend:
        await until(lambda: backend.statuses(VERSION_ID)["one"].state is RunState.DOWN)
        status = backend.statuses(VERSION_ID)["one"]
        assert status.is_final
        assert f"the interpreter that the first line of {script} names" in status.reason


@asynccontextmanager
async def started(options: ProcessOptions) -> AsyncIterator[ProcessBackend]:
    """Run one instance while the block runs."""
    backend = ProcessBackend(options)
    await backend.open()
    try:
        details = VersionDetails(FUNCTION_ID, VERSION_ID, "acme", "", {"name": "echo"})
        await backend.start(LaunchSpec(an_instance(), gpu_spec(), details))
        yield backend
    finally:
        await backend.close()


async def test_a_real_agent_pulls_from_its_queue_and_ends_when_stopped(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    connection = NatsConnection(ConnectionOptions(servers=(nats_server.url,)))
    connection.start()
    await connection.wait_connected()
    await JetStream(connection).ensure(REGION, VERSION_ID, StreamSettings())
    backend = ProcessBackend(ProcessOptions(tmp_path / "instances", lambda cluster, image: SERVER))
    changed = Signal()
    backend.listen(lambda function_id, version_id: changed.notify())
    await backend.open()
    details = VersionDetails(
        FUNCTION_ID,
        VERSION_ID,
        "acme",
        "",
        {"name": "echo", "health": {"uri": "/", "port": 8000, "timeout": "PT5S"}},
    )
    environment = {"WORKER_NATS__URLS": nats_server.url}
    await backend.start(LaunchSpec(an_instance(), gpu_spec(), details, {}, environment))
    # Not a valid envelope: only an agent takes it out of the queue.
    subject = request_subject(REGION, VERSION_ID, new_uuid())
    connection.publish(subject.encode(), b"no envelope")
    queues = Queues(*broker_on(connection, REGION))

    async def queued() -> int:
        assert backend.statuses(VERSION_ID)["one"].state is RunState.UP, backend.log_tail("one")
        load = await queues.load(VERSION_ID)
        return load.waiting + load.leased

    await until(queued, lambda count: not count, what="an empty queue")
    backend.stop("one", PATIENCE_S)
    await until(lambda: backend.statuses(VERSION_ID), lambda left: not left, changed=changed)
    assert list((tmp_path / "instances").glob("*/one")) == []
    await backend.close()
    await connection.close()


WORKER_THAT_HANDS_BACK = """
import pathlib, signal, sys, time
folder, signals = pathlib.Path(sys.argv[1]), 0
def stop(number, frame):
    global signals
    signals += 1
    (folder / "signals").write_text(str(signals))
    if signals == int(sys.argv[2]):
        sys.exit()
signal.signal(signal.SIGTERM, stop)
(folder / "ready").touch()
while True:
    time.sleep(60)
"""
SERVER_THAT_DIES = """
import os, pathlib, signal, sys, time
while not (pathlib.Path(sys.argv[1]) / "ready").exists():
    time.sleep(0.02)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("needs", [1, 2])
async def test_a_worker_whose_inference_server_dies_hands_its_requests_back_before_it_ends(
    tmp_path: Path, needs: int
) -> None:
    """The second signal makes it abandon what still runs."""
    (tmp_path / "server.py").write_text(SERVER_THAT_DIES)
    worker = (sys.executable, "-c", WORKER_THAT_HANDS_BACK, str(tmp_path), str(needs))
    command = f"process://{sys.executable} {tmp_path}/server.py {tmp_path}"
    options = ProcessOptions(tmp_path / "instances", lambda cluster, image: command, worker=worker)
    async with started(options) as backend:
        await until(lambda: backend.statuses(VERSION_ID)["one"].state is RunState.DOWN)
        assert (tmp_path / "signals").read_text() == str(needs)
        reason = backend.statuses(VERSION_ID)["one"].reason
        assert reason.startswith("the inference server ended")


async def test_a_worker_that_hands_nothing_back_is_killed(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER_THAT_DIES)
    worker = (sys.executable, "-c", WORKER_THAT_HANDS_BACK, str(tmp_path), "3")
    command = f"process://{sys.executable} {tmp_path}/server.py {tmp_path}"
    options = ProcessOptions(tmp_path / "instances", lambda cluster, image: command, worker=worker)
    async with started(options) as backend:
        await until(lambda: backend.statuses(VERSION_ID)["one"].state is RunState.DOWN)
        assert (tmp_path / "signals").read_text() == "2"
