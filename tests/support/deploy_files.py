"""What the files in ``deploy/`` say: environments of both programs, and metrics that they name."""

import importlib.util
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import yaml

from gateway.settings import ENV_PREFIX as GATEWAY
from gateway.settings import GatewaySettings
from runtime.settings import load
from tests.support.programs import ROOT
from wire.worker_api import REGISTRATION_AUDIENCE
from worker_agent.settings import ENV_PREFIX as WORKER
from worker_agent.settings import NVCF_ALIASES, WorkerSettings

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "invocation-gateway"
_CLAIMS = urlsafe_b64encode(json.dumps({"aud": REGISTRATION_AUDIENCE}).encode()).decode()
TOKEN = f"header.{_CLAIMS.rstrip('=')}.signature"
"""A registration token, with which an agent needs to know nothing else."""

_ASSIGNMENT = re.compile(r"^([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
_SELECTOR = re.compile(r"\b([a-z][a-z0-9_]*)\{")
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_secrets = _module(CHART / "files" / "make_secrets.py")
"""The program of the chart's job."""


def environment_file(path: Path) -> dict[str, str]:
    """Return the variables of a file for systemd's EnvironmentFile, without its quotes."""
    found = _ASSIGNMENT.findall(path.read_text())
    return {name: re.sub(r"^'(.*)'$", r"\1", value) for name, value in found}


def documents(path: Path) -> list[dict]:
    """Return the documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def gateway_settings(
    environ: Mapping[str, str], root: Path, file: Path | None = None
) -> GatewaySettings:
    """Return the settings that the gateway reads from its environment, and a settings file.

    Absolute paths are looked for below ``root``, where the files of secrets are made.
    """
    return load(GatewaySettings, file, GATEWAY, environ=_below(environ, root))


def worker_settings(environ: Mapping[str, str], root: Path) -> WorkerSettings:
    """Return the settings that a worker agent reads from its environment."""
    return load(WorkerSettings, None, WORKER, environ=_below(environ, root), aliases=NVCF_ALIASES)


def _below(environ: Mapping[str, str], root: Path) -> dict[str, str]:
    moved = {}
    for name, value in environ.items():
        moved[name] = value
        if value.startswith("/") and "_PATH" not in name:
            file = root / value.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            moved[name] = str(file)
    return moved


def named_metrics(text: str) -> set[str]:
    """Return the names of the metrics whose series a PromQL expression selects with labels."""
    return {_SUFFIX.sub("", name) for name in _SELECTOR.findall(text)}


def exported_metrics() -> set[str]:
    """Return the names of all metrics of the gateway, and ``up``, which Prometheus makes.

    docs/operations.md lists our own; other tests compare it with what the programs export.
    """
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.split("### Gateway\n")[1].split("\n### ")[0]
    ours = {name for row in table.splitlines() for name in re.findall(r"`([a-z_]+)`", row[:400])}
    sources = ("gateway/telemetry/metrics.py", "queueing/nats/metrics.py")
    literals = {
        name
        for source in sources
        for name in re.findall(r'"([a-z][a-z0-9_]+)"', (ROOT / source).read_text())
    }
    process = (ROOT / "runtime" / "process_metrics.py").read_text()
    own = {f"process_{name}" for name in re.findall(r'_metric\("(\w+)"', process)}
    return ours | literals | own | {"up"}
