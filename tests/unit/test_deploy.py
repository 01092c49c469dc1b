"""The files in ``deploy/`` fit the programs: settings, commands, times, ports, metrics."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from gateway.auth.bootstrap import is_secret
from gateway.invocation.states import Outcome
from tests.support.deploy_files import (
    CHART,
    DEPLOY,
    TOKEN,
    documents,
    environment_file,
    exported_metrics,
    gateway_settings,
    named_metrics,
    worker_settings,
)
from tests.support.programs import ROOT
from worker_agent.settings import WorkerSettings

SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
WITH_TOKEN = {"WORKER_CONTROL__TOKEN": TOKEN}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def unit_setting(path: Path, name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", path.read_text(), re.MULTILINE)
    return str(value)


def test_the_gateways_unit_stops_later_than_its_settings_permit(tmp_path: Path) -> None:
    settings = gateway_settings(environment_file(SYSTEMD / "gateway.env"), tmp_path)
    (cluster,) = settings.clusters
    assert cluster.backend == "external"
    assert cluster.gpus[0].instance_types[0].is_default
    drain = settings.drain
    stop_s = int(unit_setting(SYSTEMD / "invocation-gateway.service", "TimeoutStopSec"))
    assert stop_s > drain.grace_s + drain.timeout_s


def test_the_workers_unit_stops_later_than_its_settings_permit(tmp_path: Path) -> None:
    environ = environment_file(SYSTEMD / "worker.env") | WITH_TOKEN
    settings = worker_settings(environ, tmp_path)
    stop_s = int(unit_setting(SYSTEMD / "worker-agent@.service", "TimeoutStopSec"))
    assert stop_s > settings.drain.timeout_s


def test_the_units_of_one_machine_agree_about_its_files_and_ports(tmp_path: Path) -> None:
    gateway = environment_file(SYSTEMD / "gateway.env")
    nats = (SYSTEMD / "invocation-nats.service").read_text()
    (folder,) = re.findall(r"gateway nats init (\S+) --host", nats)
    files = {name: path for name, path in gateway.items() if "NATS" in name and "FILE" in name}
    assert {Path(path).parent for path in files.values()} == {Path(folder) / "gateway"}
    host = environment_file(SYSTEMD / "nats.env")["NATS_HOST"]
    assert gateway["GATEWAY_NATS__URLS"] == f"nats://{host}:4222"
    assert gateway["GATEWAY_ATTACH__ADVERTISE"] == host
    worker = environment_file(SYSTEMD / "worker.env")
    assert worker["WORKER_CONTROL__URL"] == gateway["GATEWAY_CONTROL__API_URL"]


def test_what_is_installed_is_complete_and_never_overwritten(tmp_path: Path) -> None:
    def install(*arguments: str) -> None:
        subprocess.run(
            [SYSTEMD / "install.sh", *arguments], env={"DESTDIR": str(tmp_path)}, check=True
        )

    install("gateway", "gateway.example.org")
    install("worker", "my-model")
    folder = tmp_path / "etc" / "invocation-gateway"
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert sorted(files) == ["gateway.env", "nats.env", "worker-my-model.env"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    settings = gateway_settings(environment_file(folder / "gateway.env"), tmp_path)
    assert settings.attach.advertise == "gateway.example.org"
    secret = settings.control.bootstrap_secret
    assert secret is not None
    assert is_secret(secret.get_secret_value())
    units = {path.name for path in (tmp_path / "etc" / "systemd" / "system").iterdir()}
    assert units == {path.name for path in UNITS}
    install("gateway", "gateway.example.org")
    install("worker", "my-model")
    assert files == {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_run_what_the_package_installs(unit: Path) -> None:
    programs = set(re.findall(r"/opt/invocation-gateway/bin/([\w-]+)", unit.read_text()))
    assert programs
    assert programs <= {*PROJECT["scripts"], "nats-server"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    scripts = Path(sys.executable).parent
    for unit in UNITS:
        text = unit.read_text().replace("/opt/invocation-gateway/bin", str(scripts))
        (tmp_path / unit.name.replace("@", "@model")).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.glob("*.service"))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in found.stderr.splitlines() if str(tmp_path) in line]
    assert (found.returncode, ours) == (0, [])


def test_compose_services_fit_the_image_and_each_other() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    for name, service in COMPOSE["services"].items():
        assert service["build"]["target"] in targets, name
        assert (DEPLOY / "compose" / service["build"]["context"]).resolve() == ROOT
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        mounted = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert mounted <= set(COMPOSE["volumes"])
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        for other, condition in service.get("depends_on", {}).items():
            waits = condition["condition"] == "service_healthy"
            assert not waits or "healthcheck" in COMPOSE["services"][other]


def test_compose_gives_both_programs_settings_that_they_take(tmp_path: Path) -> None:
    services = COMPOSE["services"]
    gateway = services["gateway"]
    environ = image_environment() | gateway["environment"]
    environ["GATEWAY_CONTROL__BOOTSTRAP_SECRET"] = "nvboot-" + 64 * "0"
    settings = gateway_settings(environ, tmp_path)
    assert settings.clusters[0].backend == "external"
    assert seconds(gateway["stop_grace_period"]) > settings.drain.grace_s + settings.drain.timeout_s
    worker = services["worker"]
    agent = worker_settings(worker["environment"] | WITH_TOKEN, tmp_path)
    assert agent.control.url == settings.control.api_url
    assert seconds(worker["stop_grace_period"]) > agent.drain.timeout_s
    assert str(agent.inference.port) in services["inference"]["command"]
    (folder,) = re.findall(
        r"gateway nats init (\S+) --host nats", services["nats"]["entrypoint"][2]
    )
    logins = [value for name, value in environ.items() if re.search(r"_NATS__.*_FILE", name)]
    assert {Path(path).parent for path in logins} == {Path(folder) / "gateway"}


def image_environment() -> dict[str, str]:
    """Return the variables that the gateway's image sets."""
    stage = DOCKERFILE.split("FROM base AS gateway\n")[1]
    return dict(re.findall(r"\b(GATEWAY_[A-Z_]+)=(\S+)", stage))


def test_the_image_is_built_from_what_its_context_has() -> None:
    permitted = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    missing = {one.partition("/")[0] for line in sources for one in line.split()} - set(permitted)
    assert missing == set()


def test_the_gateways_image_writes_only_to_its_volume(tmp_path: Path) -> None:
    """It runs with a read-only root file system, as another user than root."""
    environ = image_environment()
    gateway_settings(environ, tmp_path)
    paths = {value for value in environ.values() if value.startswith("/")}
    assert {Path(path).parent for path in paths} == {Path("/var/lib/gateway")}
    assert DOCKERFILE.split("FROM ")[-1].count("USER 10001:10001") == 1


def test_worker_pods_end_the_model_server_after_the_agent(tmp_path: Path) -> None:
    (deployment,) = documents(DEPLOY / "kubernetes" / "worker.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["initContainers"]
    (agent,) = pod["containers"]
    # A native sidecar: Kubernetes ends it after the containers.
    assert server["restartPolicy"] == "Always"
    environ = {one["name"]: one.get("value", "name") for one in agent["env"]}
    settings = worker_settings(environ | WITH_TOKEN, tmp_path)
    assert pod["terminationGracePeriodSeconds"] > settings.drain.timeout_s
    assert agent["ports"][0]["containerPort"] == WorkerSettings.admin.listen.port
    for container in (server, agent):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    "file",
    [
        CHART / "files" / "alerts.yaml",
        CHART / "files" / "dashboard.json",
        DEPLOY / "kubernetes" / "scaled-object.yaml",
    ],
    ids=lambda path: path.name,
)
def test_only_metrics_that_the_gateway_exports_are_named(file: Path) -> None:
    named = named_metrics(file.read_text())
    assert named
    assert named - exported_metrics() == set()


def test_alerts_name_outcomes_that_exist() -> None:
    text = (CHART / "files" / "alerts.yaml").read_text()
    named = {one for found in re.findall(r'outcome=~?"([^"]+)"', text) for one in found.split("|")}
    assert named <= {outcome.value for outcome in Outcome}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_alerts(tmp_path: Path) -> None:
    text = (CHART / "files" / "alerts.yaml").read_text()
    rules = tmp_path / "rules.yaml"
    rules.write_text(text.replace("JOB_LABELS", 'namespace="n",job="j"'))
    found = subprocess.run(
        ["promtool", "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_value_of_the_chart_is_in_its_readme_and_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    readme = (CHART / "README.md").read_text()
    named = set(leaves(values, schema))
    listed = set(re.findall(r"^\| `([\w.]+)` \|", readme, re.MULTILINE))
    assert named == listed


def leaves(values: dict, schema: dict, prefix: str = "") -> list[str]:
    """Return the dotted names of all values; they and the schema have the same ones."""
    is_open = schema.get("additionalProperties") is not False
    if prefix and is_open:
        return [prefix.rstrip(".")]
    assert set(schema["properties"]) - {"global"} == set(values), prefix
    found = []
    for name, value in values.items():
        below = schema["properties"][name]
        if isinstance(value, dict):
            found += leaves(value, below, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found
