"""``deploy/slurm/worker.sbatch``, run as Slurm runs it, with programs that stand in for its two."""

import signal
from pathlib import Path

from tests.support.deploy_files import DEPLOY, TOKEN, worker_settings
from tests.support.programs import Program

SCRIPT = DEPLOY / "slurm" / "worker.sbatch"
AGENT = """#!/bin/bash
env | grep ^WORKER_ | sed 's/^/agent: /'
trap 'echo "agent: draining"; kill -0 "$(cat {server})" && echo "agent: done"; exit {status}' TERM
echo "agent: ready"
while :; do sleep 0.2; done
"""
SERVER = """#!/bin/bash
echo $$ > {server}
trap 'echo "server: stopped"; exit 0' TERM
echo "server: $*"
while :; do sleep 0.2; done
"""


class Job:
    """A job, and what its programs write."""

    def __init__(self, folder: Path, *command: str, status: int = 0) -> None:
        pid = folder / "server.pid"
        for name, text in (("worker-agent", AGENT), ("my-server", SERVER)):
            program = folder / name
            program.write_text(text.replace("{server}", str(pid)).replace("{status}", str(status)))
            program.chmod(0o755)
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        self.program = Program(
            ["bash", str(SCRIPT), *command],
            {
                "PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin",
                "WORKER_CONTROL__URL": "http://gateway.example.com:8080",
                "WORKER_HEALTH__PATH": "/health",
                "TOKEN_FILE": str(token),
            },
        )

    def wait(self, text: str) -> str:
        return self.program.wait_line(lambda line: text in line)

    def end(self, *, by: int | None = None) -> int:
        """Return the exit status; signal the batch shell alone before, as ``--signal=B:`` does."""
        if by is not None:
            self.program.process.send_signal(by)
        return self.program.process.wait(60)


def test_the_agent_gets_all_that_it_needs(tmp_path: Path) -> None:
    job = Job(tmp_path, "my-server", "--port", "{port}")
    job.wait("agent: ready")
    arguments = job.wait("server: --port ").split()
    assert job.end(by=signal.SIGTERM) == 0
    environ = dict(
        line.removeprefix("agent: ").strip().split("=", 1)
        for line in job.program.lines
        if line.startswith("agent: WORKER_")
    )
    settings = worker_settings(environ, tmp_path)
    assert settings.control.url == "http://gateway.example.com:8080"
    assert settings.control.token is not None
    assert settings.control.token.get_secret_value() == TOKEN
    assert settings.inference.port == int(arguments[-1])
    assert settings.health.path == "/health"


def test_before_the_time_limit_the_agent_is_done_before_the_server_stops(tmp_path: Path) -> None:
    job = Job(tmp_path, "my-server")
    job.wait("agent: ready")
    job.wait("server:")
    assert job.end(by=signal.SIGTERM) == 0
    ended = [line.strip() for line in job.program.lines][-3:]
    assert ended == ["agent: draining", "agent: done", "server: stopped"]


def test_a_server_that_ends_ends_the_job_with_an_error(tmp_path: Path) -> None:
    job = Job(tmp_path, "false")
    job.wait("the model server has ended")
    assert job.end() != 0


def test_an_agent_that_ends_ends_the_job_with_its_status(tmp_path: Path) -> None:
    job = Job(tmp_path, "my-server", status=3)
    job.wait("agent: ready")
    job.wait("server:")
    assert job.end(by=signal.SIGTERM) == 3
    job.wait("server: stopped")
