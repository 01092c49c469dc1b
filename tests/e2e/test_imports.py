"""What a process does not do it does not import: that is most of its memory when it is idle."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.dev import start_dev

_FOR_PEOPLE = {"typer", "rich", "pydantic", "prometheus_client"}
_FORBIDDEN = {
    "invocation": {
        *_FOR_PEOPLE,
        *("aiohttp.client", "jwt", "cryptography", "google.protobuf"),
        *("gateway.api.app", "gateway.api.openapi", "gateway.api.route", "gateway.domain.catalog"),
        *("gateway.app.control_plane", "gateway.provision.reconciler", "gateway.cli"),
    },
    "agent": {*_FOR_PEOPLE, "aiohttp.client", "nats", "jwt", "cryptography"},
    "keeper": {*_FOR_PEOPLE, "aiohttp.client", "asyncio", "ssl", "logging", "nats"},
}
_NEEDED = {"invocation": "gateway.app.process", "agent": "worker_agent.runner"}


def modules_of(log: str) -> set[str]:
    """Return what a process has imported, from the lines of ``-X importtime``."""
    return set(re.findall(r"^import time:[\d |]+?([\w.]+)$", log, re.MULTILINE))


def test_processes_import_only_what_they_need(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    env = {
        "PYTHONPROFILEIMPORTTIME": "1",
        # Agents do not get the environment of the gateway.
        "GATEWAY_PROVISION__WORKER_COMMAND": f"{sys.executable} -P -X importtime -m worker_agent",
    }
    dev = start_dev(tmp_path, "--data-dir", str(folder), "--processes", "2", env=env)
    try:
        logs = [log.read_text() for log in folder.rglob("*.log")]
        for role, needed in _NEEDED.items():
            (found,) = [
                modules
                for modules in map(modules_of, logs)
                if needed in modules and "gateway.app.control_plane" not in modules
            ]
            assert sorted(found & _FORBIDDEN[role]) == [], role
    finally:
        dev.program.stop()


def test_on_redis_alone_nothing_of_nats_is_imported(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    env = {"PYTHONPROFILEIMPORTTIME": "1"}
    dev = start_dev(tmp_path, "--data-dir", str(folder), "--queue", "redis", env=env)
    try:
        (found,) = [
            modules
            for modules in (modules_of(log.read_text()) for log in folder.rglob("gateway.log"))
            if "gateway.app.process" in modules
        ]
        assert sorted(found & {"nats", "nkeys", "gateway.store.nats.kv"}) == []
        assert "gateway.store.redis.documents" in found
    finally:
        dev.program.stop()


def test_the_keeper_of_gateway_dev_has_no_event_loop() -> None:
    code = "import sys, gateway.dev.keeper; print(*sys.modules)"
    argv = [sys.executable, "-P", "-c", code]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(set(loaded) & _FORBIDDEN["keeper"]) == []
