"""What the chart renders is what Kubernetes, Prometheus, NATS and the gateway take."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.settings import GatewaySettings
from gateway.telemetry.health import ProcessHealth
from tests.chart.pods import GatewayPods, running_nats
from tests.support.deploy_files import (
    CHART,
    DEPLOY,
    documents,
    exported_metrics,
    gateway_settings,
    named_metrics,
)
from tests.support.programs import gateway
from tests.support.rendered_chart import VALUES, HelmError, Release, environment, render

KUBERNETES = ("1.29", "1.37")
"""The oldest that the chart takes, and the newest whose schemas are known."""
CUSTOM = {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute"}
EVERY_SET = pytest.mark.parametrize("name", [None, *VALUES])


@pytest.fixture
def release(helm: Path, name: str | None) -> Release:
    """Return what is rendered for one set of values, `None` for the chart's own."""
    return render(helm, VALUES[name] if name else None)


@pytest.fixture
def production(helm: Path) -> Release:
    return render(helm, VALUES["production"])


@EVERY_SET
def test_helm_finds_no_fault(helm: Path, name: str | None) -> None:
    values = ["--values", VALUES[name]] if name else []
    found = subprocess.run(
        [helm, "lint", "--strict", CHART, *values], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


@EVERY_SET
@pytest.mark.parametrize("version", KUBERNETES)
def test_objects_have_the_form_that_kubernetes_takes(release: Release, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="make test-chart installs it")
    checked = [one for one in release.objects if one["kind"] not in CUSTOM]
    assert len(checked) > 5
    for one in checked:
        validator.validate(one, version, strict=True)


@EVERY_SET
def test_pods_are_restricted(release: Release, name: str | None) -> None:
    """As pod security ``restricted`` asks, and with a read-only root file system."""
    for owner, template in release.pods():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"], owner
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}, owner
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, owner
            assert security["readOnlyRootFilesystem"] is True, owner
            assert security["capabilities"] == {"drop": ["ALL"]}, owner
            takes_node = any("hostPort" in port for port in container.get("ports", []))
            assert takes_node == (name == "external" and container["name"] == "gateway")
            assert container["resources"]["requests"], owner


def settings_of(release: Release, pod: dict, root: Path) -> GatewaySettings:
    (name,) = [one["configMap"]["name"] for one in pod["volumes"] if one["name"] == "settings"]
    file = root / "gateway.toml"
    file.write_text(release.named("ConfigMap", name)["data"]["gateway.toml"])
    for found in re.findall(r'"(/etc/gateway/broker-ca/[^"]+)"', file.read_text()):
        moved = root / found.lstrip("/")
        moved.parent.mkdir(parents=True, exist_ok=True)
        moved.touch()
        file.write_text(file.read_text().replace(found, str(moved)))
    environ = environment(pod)
    return gateway_settings(environ, root, file)


@EVERY_SET
def test_the_gateway_takes_its_settings(release: Release, tmp_path: Path) -> None:
    for pod in release.gateways():
        settings = settings_of(release, pod, tmp_path)
        container = pod["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        (edge,) = settings.edge.listen
        assert ports == {
            "http": edge.port,
            "attach": settings.attach.listen.port,
            "admin": settings.admin.listen.port,
        }
        assert settings.attach.advertise == "10.0.0.1"
        drain = settings.drain
        assert pod["terminationGracePeriodSeconds"] > drain.grace_s + drain.timeout_s
        has_pods = settings.clusters[0].backend == "kubernetes"
        makes_pods = has_pods and "provision" in settings.roles
        assert pod["automountServiceAccountToken"] is makes_pods


def test_the_rights_of_the_backend_are_those_for_who_gives_them_without_helm(helm: Path) -> None:
    release = render(helm, VALUES["kubernetes"])
    name = "gw-invocation-gateway-instances"
    by_hand = {one["kind"]: one for one in documents(DEPLOY / "kubernetes" / "rbac.yaml")}
    assert release.named("Role", name)["rules"] == by_hand["Role"]["rules"]
    binding = release.named("RoleBinding", name)
    assert binding["metadata"]["namespace"] == "functions"
    account = release.named("ServiceAccount", "gw-invocation-gateway")
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert binding["subjects"][0]["namespace"] == "prod"
    without = render(helm, VALUES["kubernetes"], "--set", "rbac.create=false")
    assert name not in [one["metadata"]["name"] for one in without.of_kind("Role")]


@EVERY_SET
def test_files_that_settings_name_are_mounted(release: Release, tmp_path: Path) -> None:
    for pod in release.gateways():
        container = pod["containers"][0]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        volumes = {one["name"]: one for one in pod["volumes"]}
        assert set(mounts.values()) == set(volumes)
        settings = settings_of(release, pod, tmp_path)
        paths = [value for value in environment(pod).values() if value.startswith("/")]
        if settings.objects.backend == "local":
            paths.append(str(settings.objects.folder))
        for path in map(Path, paths):
            (mount,) = [one for one in mounts if path.is_relative_to(one)]
            secret = volumes[mounts[mount]].get("secret", {})
            items = [item["path"] for item in secret.get("items", [])]
            assert not items or path.name in items, path


def test_an_upgrade_replaces_only_pods_that_change(production: Release) -> None:
    """The chart's version is in no template of pods: a new one would restart NATS for nothing."""
    for owner, template in production.pods():
        labels = template["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels), owner


@EVERY_SET
def test_probes_ask_for_what_is_served(release: Release) -> None:
    health = ProcessHealth()
    for pod in release.gateways():
        container = pod["containers"][0]
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container[kind]["httpGet"]
            assert probe["port"] == "admin"
            assert health.respond(probe["path"].encode()) is not None


@EVERY_SET
def test_services_lead_to_ports_of_pods(release: Release) -> None:
    for service in release.of_kind("Service"):
        pods = release.selected(service["spec"]["selector"])
        assert pods, service["metadata"]["name"]
        for template in pods:
            (container,) = template["spec"]["containers"]
            ports = {port["name"] for port in container["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for one in release.of_kind(kind):
            key = "podSelector" if kind == "NetworkPolicy" else "selector"
            assert release.selected(one["spec"][key]["matchLabels"])


@EVERY_SET
def test_workers_and_gateways_find_each_other_by_names_that_exist(
    release: Release, tmp_path: Path
) -> None:
    services = {
        f"{one['metadata']['name']}.prod.svc:{port['port']}"
        for one in release.of_kind("Service")
        for port in one["spec"]["ports"]
    }
    for pod in release.gateways():
        settings = settings_of(release, pod, tmp_path)
        assert settings.control.api_url.removeprefix("http://") in services
        for url in settings.nats.urls if settings.queue.backend == "nats" else ():
            assert ".prod.svc" not in url or url.removeprefix("nats://") in services


def test_the_api_is_served_by_the_pods_that_the_url_names(production: Release) -> None:
    roles = {
        name: environment(template["spec"])["GATEWAY_ROLES"]
        for name, template in production.pods()
        if name.endswith(("gateway", "control"))
    }
    assert roles == {
        "gw-invocation-gateway": "invocation",
        "gw-invocation-gateway-control": "api,provision",
    }


def test_routes_lead_to_ports_of_the_service(production: Release) -> None:
    (service,) = [
        one
        for one in production.of_kind("Service")
        if one["metadata"]["name"] == "gw-invocation-gateway"
    ]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    hosts = []
    for kind in ("HTTPRoute", "GRPCRoute"):
        (route,) = production.of_kind(kind)
        hosts += route["spec"]["hostnames"]
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                assert backend["name"] == service["metadata"]["name"]
                assert backend["port"] in ports.values()
    # An HTTPRoute and a GRPCRoute must not share one.
    assert sorted(hosts) == sorted(set(hosts))
    (ingress,) = production.of_kind("Ingress")
    for rule in ingress["spec"]["rules"]:
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": service["metadata"]["name"], "port": {"name": "http"}}


def test_prometheus_finds_every_gateway_pod(production: Release) -> None:
    (monitor,) = production.of_kind("ServiceMonitor")
    (service,) = [
        one
        for one in production.of_kind("Service")
        if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert len(production.selected(service["spec"]["selector"])) == 2
    assert monitor["spec"]["endpoints"][0]["port"] in {
        port["name"] for port in service["spec"]["ports"]
    }
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "gw"


def test_prometheus_takes_the_rules(production: Release, tmp_path: Path) -> None:
    (rule,) = production.of_kind("PrometheusRule")
    text = yaml.safe_dump(rule["spec"])
    assert 'namespace="prod",job="gw"' in text
    assert "JOB_LABELS" not in text
    assert named_metrics(text) - exported_metrics() == set()
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    found = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


@EVERY_SET
def test_the_job_makes_the_secrets_that_are_mounted_and_not_given(release: Release) -> None:
    given = {"gateway-secrets", "nats-logins", "nats-ca", "redis-ca", "redis-login", "s3-login"}
    mounted = {
        volume["secret"]["secretName"]
        for _, template in release.pods()
        for volume in template["spec"]["volumes"]
        if "secret" in volume
    }
    made: set[str] = set()
    permitted: set[str] = set()
    for job in release.of_kind("Job"):
        arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
        made |= {one.partition("=")[2] for one in arguments if not one.startswith("--instance")}
    for role in release.of_kind("Role"):
        permitted |= {name for rule in role["rules"] for name in rule.get("resourceNames", [])}
    assert mounted - given == made == permitted


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["objects.backend=emptyDir"], "is for one pod"),
        (["objects.backend=s3"], "objects.s3.bucket must be set"),
        (["broker=redis"], "redis.urls must be set"),
        (["nats.enabled=false"], "nats.urls must be set"),
        (["ingress.enabled=true"], "domain must be set"),
        (["gatewayApi.enabled=true"], "parentRefs must be set"),
        (["settings.edge.processes=4"], "processes"),
        (["nats.replicas=2"], "nats"),
        (["clusters[0].name=a,clusters[0].backend=kubernetes"], "kubernetes.namespace must be"),
        (["replica=2"], "replica"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_values_that_cannot_work_are_refused(helm: Path, values: list[str], text: str) -> None:
    more = [part for value in values for part in ("--set", value)]
    with pytest.raises(HelmError, match=text):
        render(helm, None, *more)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_gateway_starts_with_what_the_chart_gives_it(
    helm: Path, nodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NATS, settings, environment and Secrets as rendered and as the job makes them."""
    release = render(helm, VALUES["quickstart"], "--set", f"nats.replicas={nodes}")
    with running_nats(release, tmp_path, monkeypatch) as nats:
        if nodes > 1:
            nats.programs[0].wait_line(lambda line: "metadata leader" in line)
        gateways = GatewayPods(nats, tmp_path)
        environ, settings = gateways.prepared(release)
        program = gateways.start(release)
        try:
            ready = program.wait_event("gateway.ready")
            for path in ("live", "ready"):
                url = f"http://{ready['admin']}/health/{path}"
                assert httpx.get(url, timeout=10).status_code == 200
            assert "bootstrap secret" not in program.output.lower()
            check = gateway("nats", "check", "--config", str(settings), env=environ)
            assert check.wait_end() == 0, check.output
            assert "Nothing to change." in check.output
        finally:
            program.stop()
