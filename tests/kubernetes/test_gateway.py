"""The behaviour of instances that are pods, and what Kubernetes says of them in the API."""

import base64
import json
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.cluster import DEPLOYMENTS, PODS, SECRETS, Cluster
from tests.kubernetes.kubelet import Kubelet
from tests.kubernetes.servers import Servers
from tests.support.backend_behaviour import ScaledBehaviour
from tests.support.provisioned import DEPLOY_S, GPUS, Plane, Version, running_plane
from tests.support.stack import Stack, running_stack
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)


class PodHosting:
    """A namespace whose pods a `Kubelet` runs."""

    end_reason = "inference: CrashLoopBackOff: ended with code 137"

    def __init__(self, servers: Servers, cluster: Cluster, kubelet: Kubelet) -> None:
        self.cluster: Mapping[str, Any] = {
            "name": "pods",
            "backend": "kubernetes",
            "kubernetes": {
                "kubeconfig": str(servers.kubeconfig("gateway-token", "gateway")),
                "namespace": cluster.namespace,
                "agent_image": "registry/worker-agent:1",
            },
            "gpus": GPUS,
        }
        self.settings: Mapping[str, str] = {}
        self._namespace = cluster
        self._kubelet = kubelet

    async def provide(self, version: Version, count: int) -> None:
        pass

    def processes(self) -> dict[str, int]:
        return {
            f"{name}/{kind}": program.pid
            for name, pod in self._kubelet.running.items()
            for kind, program in (("agent", pod.agent), ("function", pod.function))
        }

    async def kill_server(self) -> None:
        (pod,) = self._kubelet.running.values()
        pod.function.stop(signal.SIGKILL)

    async def bring_back(self) -> None:
        (pod,) = self._kubelet.running.values()
        pod.restart()

    async def until_empty(self) -> None:
        async def left() -> int:
            deployments = await self._namespace.objects(DEPLOYMENTS)
            return len(deployments) + len(await self._namespace.objects(PODS))

        await until(left, lambda count: count == 0, timeout_s=DEPLOY_S)
        for pod in self._kubelet.ended:
            assert pod.has_drained
            # It ends by itself once it has drained. SIGTERM may come while Python ends, which has
            # no handler for it any more.
            assert pod.agent.wait_end() in {0, -signal.SIGTERM}


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running_stack() as running:
        yield running


class TestPods(ScaledBehaviour):
    @pytest.fixture
    async def plane(
        self, servers: Servers, cluster: Cluster, stack: Stack, tmp_path: Path
    ) -> AsyncIterator[Plane]:
        kubelet = Kubelet(cluster)
        hosting = PodHosting(servers, cluster, kubelet)
        async with kubelet.runs(), running_plane(stack, hosting, tmp_path) as plane:
            yield plane


async def test_kubernetes_own_reason_is_in_the_health_info(
    servers: Servers, cluster: Cluster, stack: Stack, tmp_path: Path
) -> None:
    hosting = PodHosting(servers, cluster, Kubelet(cluster))
    async with running_plane(stack, hosting, tmp_path) as plane, plane.registered() as version:
        plane.candidate()
        await version.deploy(1, 1, "pods", 4)
        (made,) = await until(lambda: cluster.objects(DEPLOYMENTS), timeout_s=DEPLOY_S)
        instance_id = made["metadata"]["name"].removeprefix("fn-")
        waiting = {"reason": "ImagePullBackOff", "message": "no such tag"}
        await cluster.say_of_container(instance_id, state={"waiting": waiting})
        await until(version.errors, lambda text: "inference: ImagePullBackOff: no such tag" in text)


async def test_an_image_is_pulled_with_the_login_that_its_account_has_for_the_registry(
    servers: Servers, cluster: Cluster, stack: Stack, tmp_path: Path
) -> None:
    hosting = PodHosting(servers, cluster, Kubelet(cluster))
    login = base64.b64encode(b"me:hunter2").decode()
    async with running_plane(stack, hosting, tmp_path) as plane, plane.registered() as version:
        plane.candidate()
        for hostname in ("docker.io", "nvcr.io"):
            credential = {
                "registryHostname": hostname,
                "secret": {"name": hostname, "value": login},
                "artifactTypes": ["CONTAINER"],
            }
            await version.call("POST", "registry-credentials", credential)
        await version.deploy(1, 1, "pods", 4)
        (made,) = await until(lambda: cluster.objects(DEPLOYMENTS), timeout_s=DEPLOY_S)
        names = made["spec"]["template"]["spec"]["imagePullSecrets"]
        assert names == [{"name": f"{made['metadata']['name']}-pull"}]
        found = await until(lambda: cluster.get(SECRETS, names[0]["name"]), timeout_s=DEPLOY_S)
    assert found["type"] == "kubernetes.io/dockerconfigjson"
    assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    # The image's registry is Docker's hub.
    logins = json.loads(base64.b64decode(found["data"][".dockerconfigjson"]))
    assert logins == {"auths": {"https://index.docker.io/v1/": {"auth": login}}}
