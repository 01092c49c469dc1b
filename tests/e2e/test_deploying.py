"""The commands of docs/deploying.md, from nothing to a first answered call."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.free_ports import free_ports
from tests.support.inference_server import serving
from tests.support.programs import ROOT

PAGE = (ROOT / "docs" / "deploying.md").read_text()
SECTIONS = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = {
    name: "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for name, text in SECTIONS
}
WAYS = sorted(name for name, commands in COMMANDS.items() if commands)
HOST = "gateway-1.example.com"
PROGRAMS = Path(sys.executable).parent


@pytest.mark.parametrize("way", WAYS)
def test_ten_commands_lead_to_a_first_call(way: str) -> None:
    assert 0 < len(COMMANDS[way].strip().splitlines()) <= 10


def test_every_way_is_counted() -> None:
    assert WAYS == ["Docker Compose", "Kubernetes", "Slurm", "Two machines with systemd"]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """Return the root of a machine with systemd, as far as the commands see it."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    shims = {
        "sudo": 'exec "$@"',
        "systemctl": f'exec {sys.executable} -m tests.support.played_systemd "$@"',
        "sudoedit": 'sed -i -e "s#^WORKER_CONTROL__URL=.*#WORKER_CONTROL__URL=$GATEWAY_API_URL#"'
        ' -e "s#^WORKER_CONTROL__TOKEN=.*#WORKER_CONTROL__TOKEN=$(cat worker-token)#"'
        ' -e "s#^WORKER_INFERENCE__PORT=.*#WORKER_INFERENCE__PORT=$MODEL_PORT#" "$1"',
    }
    (tmp_path / "shims").mkdir()
    for name, text in shims.items():
        (tmp_path / "shims" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "shims" / name).chmod(0o755)
    yield tmp_path
    with suppress(FileNotFoundError):
        for pid in map(int, reversed((tmp_path / "pids").read_text().split())):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@pytest.mark.timeout(180)
def test_the_commands_for_two_machines_answer_a_call(machine: Path) -> None:
    """Both machines are this one; ports and paths of the page's commands are replaced."""
    edge, attach, nats = free_ports(3)
    commands = COMMANDS["Two machines with systemd"]
    commands = commands.replace(f"{HOST}:8080", f"127.0.0.1:{edge}").replace(HOST, "127.0.0.1")
    commands = commands.replace("/opt/invocation-gateway/bin", str(PROGRAMS))
    commands = commands.replace("/etc/", f"{machine}/etc/")
    with serving() as model:
        environ = os.environ | {
            "DESTDIR": str(machine),
            "PATH": f"{machine / 'shims'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "MODEL_PORT": model.url.rpartition(":")[2],
            "PLAYED_PORTS": f"8080={edge},8090={attach},4222={nats}",
            "GATEWAY_ADMIN__LISTEN": "127.0.0.1:0",
        }
        (machine / "commands").write_text(
            commands.replace(
                "systemctl enable --now invocation-nats",
                f"sed -i s/^NATS_HOST=.*/NATS_HOST=127.0.0.1:{nats}/"
                f" {machine}/etc/invocation-gateway/nats.env\nsudo systemctl enable --now"
                " invocation-nats",
            )
        )
        found = subprocess.run(
            ["bash", "-eu", "commands"],
            cwd=machine,
            env=environ,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
    logs = "".join(f"\n{log.name}:\n{log.read_text()}" for log in machine.glob("*.log"))
    assert found.returncode == 0, found.stdout + found.stderr + logs
    assert found.stdout.endswith("hello")
