"""A gateway whose functions are pods: deployed, called, and undeployed under load."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.auth.keys import digest_of, new_key
from gateway.auth.scopes import ADMIN_TOKEN_SCOPES
from gateway.domain.model import EVERYTHING, ApiKey
from gateway.domain.principal import INVOKE
from tests.kubernetes.cluster import DEPLOYMENTS, SECRETS, Cluster
from tests.kubernetes.kubelet import Kubelet
from tests.kubernetes.servers import START_S, Servers
from tests.support.followed_store import opened
from tests.support.free_ports import free_port
from tests.support.nats_server import NatsServer
from tests.support.programs import gateway
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

ACCOUNT = "acme"


@pytest.fixture
async def api(
    servers: Servers, cluster: Cluster, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a gateway with the cluster; return a client with every right in one account."""
    kind = {"name": "l40s-1x", "gpus": 1, "node_selector": {"gpu": "l40s"}}
    pods = {
        "kubeconfig": str(servers.kubeconfig("gateway-token", "gateway")),
        "namespace": cluster.namespace,
        "agent_image": "registry/worker-agent:1",
    }
    clusters = [
        {
            "name": "gpus",
            "backend": "kubernetes",
            "kubernetes": pods,
            "gpus": [{"name": "L40S", "instance_types": [kind]}],
        }
    ]
    nats = NatsServer(tmp_path)
    await nats.start()
    key = new_key(b"k" * 32)
    async with opened(nats.url) as store:
        await store.prepare()
        scopes = frozenset({INVOKE, *ADMIN_TOKEN_SCOPES})
        digest = digest_of(key.encode())
        await store.put(ApiKey("k", digest, ACCOUNT, "test", scopes, EVERYTHING))
    settings = {
        "CLUSTERS": json.dumps(clusters),
        "EDGE__LISTEN": "127.0.0.1:0",
        "ATTACH__LISTEN": "127.0.0.1:0",
        "ADMIN__LISTEN": "127.0.0.1:0",
        "NATS__URLS": nats.url,
        "DRAIN__GRACE_S": "0",
        "CONTROL__SECRETS_KEY_FILE": str(tmp_path / "master.key"),
        "PROVISION__FOLDER": str(tmp_path / "instances"),
        "OBJECTS__FOLDER": str(tmp_path / "objects"),
    }
    program = gateway("serve", env={f"GATEWAY_{name}": value for name, value in settings.items()})
    try:
        ready = program.wait_event("gateway.ready", START_S)
        async with httpx.AsyncClient(
            base_url=f"http://{ready['listen'][0]}",
            headers={"authorization": f"Bearer {key}"},
            timeout=START_S,
        ) as client:
            yield client
    finally:
        program.stop()
        await nats.kill()


async def deployed(api: httpx.AsyncClient) -> tuple[str, str]:
    """Create and deploy a function; return its id and the path of its deployment."""
    port = free_port()
    health = {
        "protocol": "HTTP",
        "uri": "/health",
        "port": port,
        "timeout": "PT5S",
        "expectedStatusCode": 200,
    }
    body: dict[str, Any] = {
        "name": "echo",
        "inferenceUrl": "/echo",
        "inferencePort": port,
        "containerImage": "registry/echo:1",
        "health": health,
    }
    created = await api.post("/v2/nvcf/functions", json=body)
    assert created.status_code == 200, created.text
    function = created.json()["function"]
    path = f"/v2/nvcf/deployments/functions/{function['id']}/versions/{function['versionId']}"
    spec = {"gpu": "L40S", "minInstances": 1, "maxInstances": 1, "maxRequestConcurrency": 4}
    answer = await api.post(path, json={"deploymentSpecifications": [spec]})
    assert answer.status_code == 200, answer.text
    return function["id"], path


async def until_status(api: httpx.AsyncClient, path: str, status: str) -> None:
    async def is_there() -> bool:
        return bool((await api.get(path)).json()["deployment"]["functionStatus"] == status)

    await until(is_there, timeout_s=START_S)


async def test_a_function_is_deployed_called_and_undeployed_without_a_failed_call(
    api: httpx.AsyncClient, cluster: Cluster
) -> None:
    kubelet = Kubelet(cluster)
    async with kubelet.runs():
        function_id, path = await deployed(api)
        await until_status(api, path, "ACTIVE")
        answer = await api.post(f"/f/{function_id}/echo", content=b"hello")
        assert (answer.status_code, answer.content) == (200, b"hello")
        # Its 202 says that the gateway has the call.
        slow = await api.get(
            f"/f/{function_id}/slow?seconds=2", headers={"prefer": "respond-async"}
        )
        assert slow.status_code == 202, slow.text
        undeployed = await api.delete(f"{path}?graceful=true")
        assert undeployed.status_code == 200, undeployed.text
        response = await api.get(f"{slow.headers['location']}/response")
        assert response.status_code == 200, response.text

        async def is_gone() -> bool:
            return not await cluster.objects(DEPLOYMENTS) and not kubelet.running

        await until(is_gone, timeout_s=START_S)
        (ended,) = kubelet.ended
        await until(lambda: ended.agent.process.poll() == 0)
        assert ended.has_drained


async def test_kubernetes_own_reason_is_in_the_health_info(
    api: httpx.AsyncClient, cluster: Cluster
) -> None:
    _, path = await deployed(api)
    (made,) = await until(lambda: cluster.objects(DEPLOYMENTS), timeout_s=START_S)
    instance_id = made["metadata"]["name"].removeprefix("fn-")
    waiting = {"reason": "ImagePullBackOff", "message": "no such tag"}
    await cluster.say_of_container(instance_id, state={"waiting": waiting})

    async def health() -> str:
        return json.dumps((await api.get(path)).json()["deployment"].get("healthInfo") or [])

    async def is_told() -> bool:
        return "inference: ImagePullBackOff: no such tag" in await health()

    await until(is_told, timeout_s=START_S)


async def test_an_image_is_pulled_with_the_login_that_its_account_has_for_the_registry(
    api: httpx.AsyncClient, cluster: Cluster
) -> None:
    login = base64.b64encode(b"me:hunter2").decode()
    for hostname in ("docker.io", "nvcr.io"):
        credential = {
            "registryHostname": hostname,
            "secret": {"name": hostname, "value": login},
            "artifactTypes": ["CONTAINER"],
        }
        added = await api.post("/v2/nvcf/registry-credentials", json=credential)
        assert added.status_code == 200, added.text
    await deployed(api)
    (made,) = await until(lambda: cluster.objects(DEPLOYMENTS), timeout_s=START_S)
    names = made["spec"]["template"]["spec"]["imagePullSecrets"]
    assert names == [{"name": f"{made['metadata']['name']}-pull"}]
    found = await until(lambda: cluster.get(SECRETS, names[0]["name"]), timeout_s=START_S)
    assert found["type"] == "kubernetes.io/dockerconfigjson"
    assert found["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    # The image's registry is Docker's hub.
    logins = json.loads(base64.b64decode(found["data"][".dockerconfigjson"]))
    assert logins == {"auths": {"https://index.docker.io/v1/": {"auth": login}}}
