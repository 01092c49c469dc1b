"""The REST API on a real store; the queue returns the depths that a test sets."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from gateway.api.app import build_app
from gateway.api.identity import Identity
from gateway.api.route import Api
from gateway.api.secrets.sealed_list import RegistryCredentials, Seal, TelemetryEndpoints
from gateway.auth.authenticator import Authenticator
from gateway.auth.bootstrap import BootstrapCheck
from gateway.auth.keys import digest_of, new_key
from gateway.auth.registration import Registrations
from gateway.auth.sealing import SecretBox
from gateway.auth.signing import MASTER_BYTES, TokenSigner, VerificationKeys
from gateway.domain.catalog import Catalog
from gateway.domain.clusters import ClusterGroup, Clusters, Gpu, InstanceType
from gateway.domain.model import EVERYTHING, ApiKey, ResourceScope
from gateway.domain.queued_request import QueuedRequest
from gateway.domain.readmodel import ReadModel
from gateway.errors import StoreUnavailable
from gateway.objects.assets import Assets
from gateway.store.account_store import AccountStores
from gateway.store.credential_store import CredentialStore
from gateway.store.names import CONTROL
from gateway.store.open import make_store
from gateway.store.options import StoreOptions, options_at
from gateway.store.records import Store
from gateway.store.watcher import Watcher
from gateway.webhooks.secrets import WebhookSecrets
from queueing.interface import QueueUnavailable
from runtime.ids import new_uuid
from tests.support.objects import no_assets
from tests.support.waiting import PATIENCE_S
from tests.support.watched import Watched

SCOPES = frozenset(
    {
        "register_function",
        "update_function",
        "delete_function",
        "deploy_function",
        "list_functions",
        "list_functions_details",
        "invoke_function",
        "queue_details",
        "authorize_clients",
        "list_cluster_groups",
    }
)
CLUSTERS = Clusters(
    [
        ClusterGroup(
            "local",
            "processes",
            (
                Gpu("A10G", (InstanceType("small"), InstanceType("large", is_default=True))),
                Gpu("T4", (InstanceType("tiny"),)),
            ),
            images=("*",),
        ),
        ClusterGroup(
            "other", "processes", (Gpu("H100", (InstanceType("huge"),)),), images=("big/*",)
        ),
        ClusterGroup(
            "private",
            "processes",
            (Gpu("B200", (InstanceType("x"),)),),
            accounts=frozenset({"vip"}),
            images=("*",),
        ),
        ClusterGroup(
            "anywhere",
            "external",
            (Gpu("A10G", (InstanceType("own"),)),),
            accounts=frozenset({"has-workers"}),
        ),
        ClusterGroup(
            "pods",
            "kubernetes",
            (Gpu("L40S", (InstanceType("own"),)),),
            accounts=frozenset({"has-pods", "nvcf-default"}),
        ),
    ]
)
IMAGE = {"name": "echo", "inferenceUrl": "/echo", "containerImage": "img:1"}
SPEC = {"backend": "local", "gpu": "A10G", "minInstances": 1, "maxInstances": 2}


class SetQueue:
    """Queue depths and positions that a test sets; a depth of `None` means that NATS is down."""

    def __init__(self) -> None:
        self.depths: dict[str, int | None] = {}
        self.in_line: dict[str, QueuedRequest] = {}

    async def depth(self, version_id: str) -> int:
        depth = self.depths.get(version_id, 0)
        if depth is None:
            raise QueueUnavailable
        return depth

    async def find(self, request_id: str) -> QueuedRequest | None:
        return self.in_line.get(request_id)


class OpenVault:
    """A `gateway.api.route.SecretStore` in memory; every write fails while ``is_broken``."""

    def __init__(self) -> None:
        self.is_broken = False
        self.kept: dict[tuple[str, str, str], Mapping[str, object]] = {}

    async def put(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        if self.is_broken:
            raise StoreUnavailable
        self.kept[account, function_id, version_id] = values

    async def update(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        kept = self.kept.get((account, function_id, version_id), {})
        await self.put(account, function_id, version_id, {**kept, **values})

    async def delete(self, account: str, function_id: str, version_id: str) -> None:
        self.kept.pop((account, function_id, version_id), None)


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """Response of the API; ``body`` is the parsed document if it is JSON, else the bytes."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True)
class Client:
    """API client that sends one key with every call; no credential if the key is `None`."""

    session: aiohttp.ClientSession
    key: str | None
    headers: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, json: object = None, **how: Any) -> ApiResponse:
        headers = dict(self.headers)
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        headers.update(how.pop("headers", {}))
        if json is not None:
            how["json"] = json
        async with self.session.request(method, path, headers=headers, **how) as response:
            raw = await response.read()
            is_json = response.content_type.endswith("json")
            body = await response.json(content_type=None) if raw and is_json else raw
            return ApiResponse(response.status, response.headers, body)

    async def get(self, path: str, **how: Any) -> ApiResponse:
        return await self.call("GET", path, **how)

    async def post(self, path: str, json: object = None, **how: Any) -> ApiResponse:
        return await self.call("POST", path, json, **how)

    async def put(self, path: str, json: object = None, **how: Any) -> ApiResponse:
        return await self.call("PUT", path, json, **how)

    async def patch(self, path: str, json: object = None, **how: Any) -> ApiResponse:
        return await self.call("PATCH", path, json, **how)

    async def delete(self, path: str, **how: Any) -> ApiResponse:
        return await self.call("DELETE", path, **how)

    async def create(self, **changes: object) -> tuple[str, str]:
        """Register a function; return its id and its version id."""
        response = await self.post("/v2/nvcf/functions", {**IMAGE, **changes})
        assert response.status == 200, response
        return response.body["function"]["id"], response.body["function"]["versionId"]

    async def deployed(self, **changes: object) -> tuple[str, str]:
        """Register and deploy a function; return its id and its version id."""
        function_id, version_id = await self.create()
        response = await self.post(
            deployment_path(function_id, version_id),
            {"deploymentSpecifications": [{**SPEC, **changes}]},
        )
        assert response.status == 200, response
        return function_id, version_id


class WatchedCatalog(Watched, Catalog):
    """Catalog whose changes a test can wait for."""

    def __init__(self) -> None:
        super().__init__(ReadModel())


class ControlPlane:
    """The control plane of one gateway process; it creates keys and clients for tests."""

    url = ""
    """Base URL of the API, without a trailing slash."""

    def __init__(
        self, store: Store, api: Api, catalog: WatchedCatalog, session: aiohttp.ClientSession
    ) -> None:
        self.store = store
        self.api = api
        self.catalog = catalog
        self.session = session

    async def client(
        self,
        account: str = "acme",
        scopes: frozenset[str] = SCOPES,
        reach: ResourceScope = EVERYTHING,
        **headers: str,
    ) -> Client:
        """Return a client with a new key."""
        key = new_key(os.urandom(32))
        record = ApiKey(new_uuid(), digest_of(key.encode()), account, "me", scopes, reach)
        await self.store.put(record, 0)
        await self.catalog.until(lambda: self.catalog.model.key(record.digest) is not None)
        return Client(self.session, key, headers)

    def stranger(self) -> Client:
        return Client(self.session, None)


def seal_of(stores: AccountStores) -> Seal:
    """Return how lists are sealed, with a key of its own."""
    return Seal(stores, SecretBox(os.urandom(32)), time.time, os.urandom)


def version_path(function_id: str, version_id: str) -> str:
    return f"/v2/nvcf/functions/{function_id}/versions/{version_id}"


def deployment_path(function_id: str, version_id: str) -> str:
    return f"/v2/nvcf/deployments/functions/{function_id}/versions/{version_id}"


@asynccontextmanager
async def control_plane(
    url: str,
    queue: SetQueue | None = None,
    vault: OpenVault | None = None,
    store_at: Callable[[StoreOptions], Store] = make_store,
    assets: Assets | None = None,
) -> AsyncIterator[ControlPlane]:
    """Serve the API on the store at ``url`` while the block runs."""
    store = store_at(options_at([url], "test"))
    await store.open(PATIENCE_S)
    await store.prepare()
    catalog = WatchedCatalog()
    watcher = Watcher(store, catalog, CONTROL)
    watcher.start()
    queue = queue or SetQueue()
    signer = TokenSigner(os.urandom(MASTER_BYTES))
    credentials = CredentialStore(store, watcher.wait_until_shown)
    stores = AccountStores(store, watcher.wait_until_shown)
    seal = seal_of(stores)
    api = Api(
        authenticate=Authenticator(
            catalog.model, VerificationKeys(signer), BootstrapCheck()
        ).authenticate,
        identity=Identity(credentials, signer, os.urandom),
        stores=stores,
        catalog=catalog,
        clusters=CLUSTERS,
        queue=queue,
        requests=queue,
        secrets=vault or OpenVault(),
        assets=assets or no_assets(),
        telemetry_endpoints=TelemetryEndpoints(seal),
        registry_credentials=RegistryCredentials(seal),
        webhook_secrets=WebhookSecrets(store, SecretBox(os.urandom(32)), time.time, os.urandom),
        registrations=Registrations(store, time.time),
        clock=time.time,
        new_id=new_uuid,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await watcher.loaded.wait()
        async with (
            TestServer(build_app(api)) as server,
            aiohttp.ClientSession(server.make_url("/")) as session,
        ):
            plane = ControlPlane(store, api, catalog, session)
            plane.url = str(server.make_url("")).rstrip("/")
            yield plane
    finally:
        await watcher.stop()
        await store.close()
