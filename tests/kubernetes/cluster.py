"""A namespace in which the test plays controllers, scheduler and kubelet."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from gateway.provision.kubernetes.manifests import INSTANCE_LABEL
from runtime.ids import new_uuid
from runtime.tasks import spawn
from tests.kubernetes.servers import ADMIN, Servers
from tests.support.waiting import until

RBAC = Path(__file__).parents[2] / "deploy" / "kubernetes" / "rbac.yaml"
Document = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
PODS = "/api/v1/namespaces/{}/pods"
SECRETS = "/api/v1/namespaces/{}/secrets"
BUDGETS = "/apis/policy/v1/namespaces/{}/poddisruptionbudgets"
ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}"
CONTROL_S = 0.05


class Cluster:
    """One namespace of its own, as its administrator sees it.

    While `controlled`, each Deployment has the pods that it asks for.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.namespace = f"t-{new_uuid()[:13]}"

    async def prepare(self) -> None:
        """Make the namespace, which refuses privileged pods, with the rights of `RBAC`."""
        labels = {"pod-security.kubernetes.io/enforce": "baseline"}
        metadata = {"name": self.namespace, "labels": labels}
        await self.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        for document in yaml.safe_load_all(RBAC.read_text()):
            plural = {"Role": "roles", "RoleBinding": "rolebindings"}.get(document["kind"])
            if plural is not None:
                document["metadata"]["namespace"] = self.namespace
                await self.call("POST", f"{ROLES}/{plural}", document)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Document:
        """Return the response; raises `aiohttp.ClientResponseError`, also for a warning."""
        url = f"{self._url}{path.format(self.namespace)}"
        headers = {"Content-Type": content_type, **(headers or {})}
        async with self._session.request(method, url, json=body, headers=headers) as response:
            document: Document = await response.json()
            warnings = response.headers.getall("Warning", [])
            if not response.ok or warnings:
                message = "; ".join(warnings) or str(document)
                raise aiohttp.ClientResponseError(
                    response.request_info, (), status=response.status, message=message
                )
            return document

    async def apply(self, manifest: Document, *, dry_run: bool = False) -> Document:
        """Create or change an object by server-side apply; no member may be unknown.

        ``dry_run`` does all but store it. Raises `aiohttp.ClientResponseError`.
        """
        meta = manifest["metadata"]
        path = await self._path_of(manifest, meta.get("namespace", self.namespace))
        query = "fieldManager=test&force=true&fieldValidation=Strict"
        query += "&dryRun=All" if dry_run else ""
        return await self.call(
            "PATCH", f"{path}/{meta['name']}?{query}", manifest, "application/apply-patch+yaml"
        )

    async def _path_of(self, manifest: Document, namespace: str) -> str:
        """Return the path of all objects of a kind, as the server says."""
        version = manifest["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        for one in (await self.call("GET", root))["resources"]:
            if one["kind"] == manifest["kind"] and "/" not in one["name"]:
                scope = f"/namespaces/{namespace}" if one["namespaced"] else ""
                return f"{root}{scope}/{one['name']}"
        raise AssertionError(f"{version} has no {manifest['kind']}")

    async def get(self, path: str, name: str) -> Document | None:
        """Return an object, `None` if there is none."""
        try:
            return await self.call("GET", f"{path}/{name}")
        except aiohttp.ClientResponseError as error:
            if error.status == 404:
                return None
            raise

    async def objects(self, path: str) -> list[Document]:
        found: list[Document] = (await self.call("GET", path))["items"]
        return found

    async def pods_of(self, instance_id: str) -> list[Document]:
        return [
            pod
            for pod in await self.objects(PODS)
            if pod["metadata"]["labels"].get(INSTANCE_LABEL) == instance_id
        ]

    async def pod_of(self, instance_id: str) -> Document:
        """Wait for the pod of an instance."""
        (pod,) = await until(lambda: self.pods_of(instance_id))
        found: Document = pod
        return found

    async def say(self, instance_id: str, **status: Any) -> None:
        """Set members of the status of an instance's pod, as kubelet and scheduler do."""
        pod = await self.pod_of(instance_id)
        path = f"{PODS}/{pod['metadata']['name']}/status"
        await self.call("PATCH", path, {"status": status}, "application/merge-patch+json")

    async def say_of_container(self, instance_id: str, **status: Any) -> None:
        """Set the status of the function's container."""
        container = {
            "name": "inference",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {},
            "lastState": {},
            **status,
        }
        await self.say(instance_id, containerStatuses=[container])

    @asynccontextmanager
    async def controlled(self) -> AsyncIterator[None]:
        """Play the controllers of Deployments, and the garbage collector."""
        async with repeated(self._control_once):
            yield

    async def _control_once(self) -> None:
        wanted = {one["metadata"]["uid"]: one for one in await self.objects(DEPLOYMENTS)}
        for pod in await self.objects(PODS):
            owner = wanted.get(pod["metadata"]["ownerReferences"][0]["uid"])
            if owner is None or not owner["spec"]["replicas"]:
                if not pod["metadata"].get("deletionTimestamp"):
                    await self.call("DELETE", f"{PODS}/{pod['metadata']['name']}")
            else:
                del wanted[owner["metadata"]["uid"]]
        for one in wanted.values():
            if one["spec"]["replicas"]:
                await self._make_pod(one)

    async def _make_pod(self, owner: Document) -> None:
        template = owner["spec"]["template"]
        reference = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
        metadata = {
            **template["metadata"],
            "name": f"{owner['metadata']['name']}-{new_uuid()[:5]}",
            "ownerReferences": [reference],
        }
        await self.call("POST", PODS, {"metadata": metadata, "spec": template["spec"]})


@asynccontextmanager
async def repeated(play: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Play a part of Kubernetes again and again while the block runs.

    The last round is finished: a cancelled call leaves its connection open for a while. What an API
    server that is down prevents is done in a later round.
    """
    over = asyncio.Event()

    async def run() -> None:
        while not over.is_set():
            with suppress(aiohttp.ClientError):
                await play()
            with suppress(TimeoutError):
                async with asyncio.timeout(CONTROL_S):
                    await over.wait()

    task = spawn(run(), "tests.kubernetes")
    try:
        yield
    finally:
        over.set()
        await task


@asynccontextmanager
async def cluster_on(servers: Servers) -> AsyncIterator[Cluster]:
    """Run a namespace of the test's own."""
    context = ssl.create_default_context(cafile=str(servers.authority))
    connector = aiohttp.TCPConnector(ssl=context)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        cluster = Cluster(session, servers.url)
        await cluster.prepare()
        async with cluster.controlled():
            yield cluster
