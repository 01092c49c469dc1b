"""The chart at a real API server: every object by dry run, and the rights that it gives."""

from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from kubernetes_asyncio.config import incluster_config

from gateway.provision.backend import RunState
from gateway.provision.kubernetes.client import ClusterLogin
from tests.kubernetes.backends import OPTIONS, gateway_on
from tests.kubernetes.cluster import PODS, Cluster
from tests.kubernetes.crds import definitions
from tests.kubernetes.servers import START_S, Servers
from tests.support.deploy_files import DEPLOY, documents
from tests.support.launches import launch_of
from tests.support.rendered_chart import NAMESPACE, VALUES, Release, render
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

FUNCTIONS = "functions"
CUSTOM_GROUPS = ("monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh")
RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}
ACCOUNTS = "/api/v1/namespaces/{}/serviceaccounts"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def is_custom(manifest: dict[str, Any]) -> bool:
    return str(manifest["apiVersion"]).startswith(CUSTOM_GROUPS)


async def make(cluster: Cluster, path: str, document: dict[str, Any]) -> None:
    """Create an object, unless an earlier test has."""
    try:
        await cluster.call("POST", path, document)
    except aiohttp.ClientResponseError as error:
        if error.status != 409:
            raise


@pytest.fixture
async def restricted(cluster: Cluster) -> Cluster:
    """Return the cluster with the chart's namespaces, which take restricted pods only."""
    for name in (NAMESPACE, FUNCTIONS):
        metadata = {"name": name, "labels": RESTRICTED}
        await make(cluster, "/api/v1/namespaces", {"metadata": metadata})
    return cluster


@pytest.fixture
async def customised(restricted: Cluster) -> Cluster:
    """Return the cluster with the definitions of all custom resources that the chart uses."""
    found = definitions()
    if found is None:
        pytest.skip("there is no Go, which gets the definitions of custom resources")
    for one in found:
        await make(restricted, DEFINITIONS, one)

    async def are_served() -> bool:
        conditions = [
            condition
            for one in found
            for condition in (
                await restricted.call("GET", f"{DEFINITIONS}/{one['metadata']['name']}")
            )["status"].get("conditions")
            or ()
            if condition["type"] == "Established" and condition["status"] == "True"
        ]
        groups = {one["name"] for one in (await restricted.call("GET", "/apis"))["groups"]}
        return len(conditions) == len(found) and groups.issuperset(CUSTOM_GROUPS)

    await until(are_served, timeout_s=START_S)
    return restricted


def pods_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod that a controller makes of a template, with the volumes of its claims."""
    if "template" not in manifest.get("spec", {}):
        return []
    template = manifest["spec"]["template"]
    claims = [one["metadata"]["name"] for one in manifest["spec"].get("volumeClaimTemplates", ())]
    volumes = [{"name": one, "persistentVolumeClaim": {"claimName": one}} for one in claims]
    spec = template["spec"] | {"volumes": [*template["spec"].get("volumes", ()), *volumes]}
    metadata = template["metadata"] | {"name": manifest["metadata"]["name"]}
    return [{"metadata": metadata, "spec": spec}]


def rendered(helm: Path, name: str | None) -> Release:
    return render(helm, VALUES[name] if name else None)


async def refusals(cluster: Cluster, manifest: dict[str, Any]) -> list[str]:
    """Return what the server says against an object, and against the pod that is made of it."""
    placed = manifest | {"metadata": {"namespace": NAMESPACE} | manifest["metadata"]}
    pods = PODS.replace("{}", NAMESPACE) + "?dryRun=All&fieldValidation=Strict"
    found = []
    for call in (
        cluster.apply(placed, dry_run=True),
        *(cluster.call("POST", pods, pod) for pod in pods_of(manifest)),
    ):
        try:
            await call
        except aiohttp.ClientResponseError as error:
            found.append(f"{manifest['kind']}: {error.message}")
    return found


@pytest.mark.parametrize("name", [None, *VALUES])
async def test_kubernetes_takes_every_object_and_restricted_pods(
    helm: Path, restricted: Cluster, name: str | None
) -> None:
    objects = [one for one in rendered(helm, name).objects if not is_custom(one)]
    assert len(objects) > 5
    found = [text for one in objects for text in await refusals(restricted, one)]
    # A port of the node is what such a namespace must permit.
    expected = 2 if name == "external" else 0
    assert len(found) == expected, found
    assert all("hostPort" in text for text in found)


async def test_kubernetes_takes_custom_objects(helm: Path, customised: Cluster) -> None:
    custom = [one for one in rendered(helm, "production").objects if is_custom(one)]
    kinds = {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute"}
    assert {one["kind"] for one in custom} == kinds
    assert [text for one in custom for text in await refusals(customised, one)] == []
    one = custom[0]
    (refusal,) = await refusals(customised, one | {"spec": one["spec"] | {"not_a_member": 1}})
    assert "not_a_member" in refusal


async def test_kubernetes_takes_the_workers_of_the_examples(customised: Cluster) -> None:
    for file in ("worker.yaml", "scaled-object.yaml"):
        for one in documents(DEPLOY / "kubernetes" / file):
            assert await refusals(customised, one) == []


async def test_a_pod_that_is_not_restricted_is_refused(restricted: Cluster, helm: Path) -> None:
    """What the tests above rely on: the object gets a warning, the pod is refused."""
    one = deepcopy(rendered(helm, "quickstart").of_kind("Deployment")[0])
    del one["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]
    found = await refusals(restricted, one)
    assert ["unrestricted capabilities" in text for text in found] == [True, True]


async def test_the_charts_role_permits_every_call_of_the_backend_and_no_other(
    servers: Servers,
    cluster: Cluster,
    helm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the login of the gateway's pod: environment, files, and a token of its account."""
    own = cluster.namespace
    more = ("--namespace", own, "--set", f"clusters[0].kubernetes.namespace={own}")
    release = render(helm, VALUES["kubernetes"], *more)
    name = "gw-invocation-gateway"
    role = release.named("Role", f"{name}-instances")
    for kind, named in (
        ("ServiceAccount", name),
        ("Role", f"{name}-instances"),
        ("RoleBinding", f"{name}-instances"),
    ):
        await cluster.apply(release.named(kind, named))
    asked = {"spec": {"expirationSeconds": 3600}}
    made = await cluster.call("POST", f"{ACCOUNTS}/{name}/token", asked)
    (tmp_path / "token").write_text(made["status"]["token"])
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(servers.authority))
    address = urlsplit(servers.url)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    login = ClusterLogin(namespace=own)
    async with gateway_on(servers, cluster, OPTIONS, login=login) as gateway:
        await until(lambda: gateway.backend.is_known("gpus"), timeout_s=START_S)
        one = await gateway.started(cluster)
        await gateway.until_state(one, RunState.UP)
        gateway.backend.fail(one, "unhealthy")
        await gateway.until_state(one, RunState.DOWN)
        await gateway.backend.start(launch_of(one, token="second"))
        await gateway.until_state(one, RunState.UP)
        gateway.backend.stop(one, 30)
        await gateway.until_state(one, None)
    user = f"system:serviceaccount:{own}:{name}"
    events = servers.audited(user)
    assert {one["responseStatus"]["code"] for one in events} <= {200, 201}
    used = {(one["objectRef"]["resource"], one["verb"]) for one in events}
    permitted = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # An apply that makes an object is a patch, for which the server wants the right to create too.
    implied = {(resource, "create") for resource, verb in used if verb == "patch"}
    assert used | implied == permitted
