"""The Kubernetes backend against a real API server: the test plays controllers and kubelet."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from gateway.provision.backend import RunState
from gateway.provision.kubernetes.client import ClusterLogin
from gateway.provision.kubernetes.manifests import InstanceShape, budget_name, name_of
from runtime.ids import new_uuid
from tests.kubernetes.backends import OPTIONS, Gateway, gateway_on
from tests.kubernetes.cluster import BUDGETS, DEPLOYMENTS, PODS, SECRETS, Cluster
from tests.kubernetes.servers import START_S, Servers
from tests.support.deployments import FUNCTION_ID, VERSION_ID
from tests.support.launches import launch_of
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

PLUGIN = """set -e; printf . >> TOKEN.runs; token=$(cat TOKEN)
printf '{"apiVersion": "client.authentication.k8s.io/v1",
"kind": "ExecCredential", "status": {"token": "%s"}}' "$token"
"""
READY = [{"type": "Ready", "status": "True"}]


@pytest.fixture
async def gateway(servers: Servers, cluster: Cluster) -> AsyncIterator[Gateway]:
    async with gateway_on(servers, cluster) as found:
        await until(lambda: found.backend.is_known("gpus"), timeout_s=START_S)
        yield found


async def test_an_instance_is_a_deployment_with_a_secret_and_its_version_has_a_budget(
    gateway: Gateway, cluster: Cluster
) -> None:
    one, other = await gateway.started(cluster), await gateway.started(cluster)
    made = await cluster.get(DEPLOYMENTS, name_of(one))
    assert made is not None
    assert made["spec"]["replicas"] == 1
    secret = await cluster.get(SECRETS, name_of(one))
    assert secret is not None
    assert secret["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    (pod,) = await cluster.pods_of(one)
    (agent,) = pod["spec"]["initContainers"]
    assert agent["restartPolicy"] == "Always"
    assert pod["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "1"

    async def owner_names() -> set[str]:
        budget = await cluster.get(BUDGETS, budget_name(VERSION_ID))
        references = [] if budget is None else budget["metadata"]["ownerReferences"]
        return {reference["name"] for reference in references}

    assert await owner_names() == {name_of(one), name_of(other)}
    await cluster.say(one, phase="Running", conditions=READY)
    assert (await gateway.until_state(one, RunState.UP)).reason == ""


async def test_the_pods_own_reasons_are_told_and_secrets_are_not(
    gateway: Gateway, cluster: Cluster
) -> None:
    one = await gateway.started(cluster)
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    await cluster.say(one, conditions=[unschedulable])
    await gateway.until_reason(one, "Unschedulable", "Insufficient nvidia.com/gpu")
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    await cluster.say_of_container(one, state={"waiting": waiting})
    await gateway.until_reason(one, "ImagePullBackOff: Back-off pulling image")
    await cluster.say_of_container(
        one,
        restartCount=2,
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        lastState={
            "terminated": {
                "exitCode": 137,
                "reason": "OOMKilled",
                "message": "loading\nkey is hush-hush\n",
            }
        },
    )
    status = await gateway.until_reason(one, "OOMKilled, ended with code 137, restarted 2 times")
    assert status.reason.endswith("loading\nkey is ***")
    assert status.state is RunState.UP
    assert gateway.backend.log_tail(one) == "loading\nkey is ***\n"
    assert set(gateway.changes) == {(FUNCTION_ID, VERSION_ID)}


async def test_an_unhealthy_instance_is_down_when_its_pod_is_gone_and_starts_with_a_new_token(
    gateway: Gateway, cluster: Cluster
) -> None:
    one = await gateway.started(cluster, token="first")
    first = (await cluster.pod_of(one))["metadata"]["uid"]
    gateway.backend.fail(one, "unhealthy for 60 s")
    down = await gateway.until_state(one, RunState.DOWN)
    assert down.reason == "unhealthy for 60 s"
    assert await cluster.pods_of(one) == []

    launch = launch_of(one)
    left_out = replace(launch, worker_environment={"WORKER_CONTROL__TOKEN": "second"})
    await gateway.backend.start(left_out)
    assert (await gateway.until_state(one, RunState.UP)).since >= down.since
    assert (await cluster.pod_of(one))["metadata"]["uid"] != first
    secret = await cluster.get(SECRETS, name_of(one))
    assert secret is not None
    token = base64.b64decode(secret["data"].pop("WORKER_CONTROL__TOKEN"))
    assert (token, set(secret["data"])) == (b"second", {"secrets.json"})


async def test_a_stopped_instance_is_stopping_until_its_pod_is_gone(
    gateway: Gateway, cluster: Cluster
) -> None:
    one = await gateway.started(cluster)
    pod = await cluster.pod_of(one)
    # A pod that a node has ends only when its kubelet says so.
    binding = {"metadata": {"name": pod["metadata"]["name"]}, "target": {"name": "node-1"}}
    await cluster.call("POST", f"{PODS}/{pod['metadata']['name']}/binding", binding)
    gateway.backend.stop(one, 30)
    await gateway.until_state(one, RunState.STOPPING)

    async def is_ending() -> object:
        return (await cluster.pod_of(one))["metadata"].get("deletionTimestamp")

    await until(is_ending)
    status = gateway.status(one)
    assert status is not None
    assert status.state is RunState.STOPPING
    await cluster.call("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    await gateway.until_state(one, None)
    assert await cluster.get(DEPLOYMENTS, name_of(one)) is None


async def test_the_next_leader_finds_every_instance_as_it_is(
    servers: Servers, gateway: Gateway, cluster: Cluster
) -> None:
    up, failed = await gateway.started(cluster), await gateway.started(cluster)
    gateway.backend.fail(failed, "unhealthy")
    await gateway.until_state(failed, RunState.DOWN)
    async with gateway_on(servers, cluster) as other:
        await other.until_state(up, RunState.UP)
        assert (await other.until_state(failed, RunState.DOWN)).reason == "unhealthy"
        assert (FUNCTION_ID, VERSION_ID) in other.changes
        assert other.backend.version_ids() == ()
        other.backend.stop(up, 30)
        other.backend.stop(failed, 30)
        for one in (up, failed):
            await other.until_state(one, None)
            await gateway.until_state(one, None)


async def test_another_cluster_of_the_same_namespace_is_left_alone(
    servers: Servers, gateway: Gateway, cluster: Cluster
) -> None:
    async with gateway_on(servers, cluster, replace(OPTIONS, cluster="other")) as other:
        one = await other.started(cluster)
        mine = await gateway.started(cluster)
        await gateway.until_state(mine, RunState.UP)
        assert gateway.status(one) is None


async def test_a_login_that_has_expired_is_read_again_until_it_is_good(
    servers: Servers, cluster: Cluster, tmp_path: Path
) -> None:
    """As a plugin of a cloud gives it: for some minutes, and not while the cloud is away."""
    token = tmp_path / "token"
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", PLUGIN.replace("TOKEN", str(token))],
    }
    kubeconfig = servers.kubeconfig_of({"exec": plugin}, "plugin")
    login = ClusterLogin(kubeconfig, namespace=cluster.namespace)
    token.write_text("expired-token")

    def runs() -> int:
        return len((tmp_path / "token.runs").read_text())

    async with gateway_on(servers, cluster, login=login) as gateway:
        one = new_uuid()
        await gateway.backend.start(launch_of(one))
        await until(lambda: runs() >= 2)
        token.unlink()
        failed = runs() + 2
        await until(lambda: runs() >= failed)
        token.write_text("gateway-token")
        await cluster.pod_of(one)
        await gateway.until_state(one, RunState.UP)
        await until(lambda: gateway.backend.is_known("gpus"), timeout_s=START_S)


async def test_what_kubernetes_refuses_is_down_for_good_with_its_words(
    servers: Servers, cluster: Cluster
) -> None:
    shapes = {("L40S", "type-1"): InstanceShape(1, {"memory": "64Gi"}, {"not a label!": "x"})}
    async with gateway_on(servers, cluster, replace(OPTIONS, shapes=shapes)) as gateway:
        await until(lambda: gateway.backend.is_known("gpus"), timeout_s=START_S)
        one = new_uuid()
        await gateway.backend.start(launch_of(one))
        refused = await gateway.until_state(one, RunState.DOWN)
        assert refused.is_final
        assert "nodeSelector" in refused.reason
    async with gateway_on(servers, cluster, token="stranger-token") as stranger:
        await stranger.backend.start(launch_of(one))
        refused = await stranger.until_state(one, RunState.DOWN)
        assert 'User "stranger" cannot patch resource "deployments"' in refused.reason
        # Nor may it list: nothing is planned for a cluster of which nothing is known.
        assert not stranger.backend.is_known("gpus")


async def test_the_gateway_has_no_right_to_read_secrets(servers: Servers, cluster: Cluster) -> None:
    headers = {"Authorization": "Bearer gateway-token"}
    with pytest.raises(aiohttp.ClientResponseError, match="secrets is forbidden"):
        await cluster.call("GET", SECRETS, headers=headers)


async def test_a_killed_api_server_loses_nothing_that_was_asked_for(
    servers: Servers, gateway: Gateway, cluster: Cluster
) -> None:
    before = await gateway.started(cluster)
    servers.kill_api()
    during = new_uuid()
    await gateway.backend.start(launch_of(during))
    try:
        await gateway.until_reason(during, "Kubernetes cannot be reached")
        gateway.backend.stop(before, 30)
        assert gateway.status(before).state is RunState.STOPPING  # type: ignore[union-attr]
    finally:
        servers.start_api()
    await cluster.pod_of(during)
    await gateway.until_state(before, None)
    await cluster.say_of_container(during, state={"waiting": {"reason": "ErrImagePull"}})
    await gateway.until_reason(during, "ErrImagePull")
