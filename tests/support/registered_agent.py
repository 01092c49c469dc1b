"""A worker agent that connects through the API: a nats-server with logins and real routes."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from aiohttp.test_utils import TestServer

from gateway.api.app import build_app
from gateway.api.identity import Identity
from gateway.api.route import Api, Call
from gateway.api.routes.workers import WorkerOptions, WorkerPorts, Workers
from gateway.api.schemas.workers import ConnectBody, ConnectResponse
from gateway.api.secrets.sealed_list import RegistryCredentials, TelemetryEndpoints
from gateway.auth.authenticator import Authenticator
from gateway.auth.bootstrap import BootstrapCheck
from gateway.auth.registration import Registrations
from gateway.auth.sealing import SecretBox
from gateway.auth.signing import TokenSigner, VerificationKeys
from gateway.auth.tokens import WorkerIdentity, mint, worker_principal
from gateway.domain.catalog import Catalog
from gateway.domain.model import Deployment, Instance, InstanceKey
from gateway.domain.readmodel import ReadModel
from gateway.store.account_store import AccountStores
from gateway.store.credential_store import CredentialStore
from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.nats.kv import NatsStore
from gateway.store.options import NatsOptions
from gateway.store.records import Store
from gateway.webhooks.secrets import WebhookSecrets
from queueing.nats.accounts.credentials import LoginFiles, NatsWorkerCredentials
from queueing.nats.admin import JetStreamAdmin
from queueing.nats.connection import NatsConnection
from runtime.ids import new_uuid
from tests.support.control import CLUSTERS, OpenVault, SetQueue, seal_of
from tests.support.deployments import instance
from tests.support.free_ports import free_port
from tests.support.nats_logins import GuardedNats
from tests.support.objects import no_assets
from tests.support.programs import Program, worker_agent
from tests.support.queue_harness import OPTIONS, REGION, STREAMS, connected
from tests.support.raw_server import Peer, RawServer, Serve
from tests.support.waiting import PATIENCE_S, until
from wire.ids import FunctionId, VersionId


class CountedWorkers(Workers):
    """``connects`` is the number of connect calls."""

    connects = 0

    async def connect(self, api: Api, call: Call[ConnectBody, None]) -> ConnectResponse:
        self.connects += 1
        return await super().connect(api, call)


class Platform:
    """Store, queue and the API's routes for workers; `up` and `down` start and stop the API."""

    def __init__(
        self,
        nats: GuardedNats,
        store: Store,
        data: NatsConnection,
        workers: CountedWorkers,
        api: Api,
        token_of: Callable[[WorkerIdentity, float, float], str],
        port: int,
    ) -> None:
        self.nats = nats
        self.store = store
        self.data = data
        self.workers = workers
        self.token_of = token_of
        self.port = port
        self._api = api
        self._server: TestServer | None = None
        self.record = instance(new_uuid())
        self.record = replace(
            self.record,
            function_id=FunctionId(new_uuid()),
            version_id=VersionId(new_uuid()),
        )

    async def up(self) -> None:
        app = build_app(self._api, self.workers.routes())
        self._server = TestServer(app, port=self.port)
        await self._server.start_server()

    async def down(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, deployment: Deployment) -> None:
        """Make this the deployment that the API knows."""
        self._api.catalog.apply(deployment)

    async def instance(self) -> Instance:
        name = InstanceKey(self.record.version_id, self.record.instance_id)
        found = await self.store.get(name)
        assert found is not None
        assert isinstance(found[0], Instance)
        return found[0]

    async def until(self, condition: Callable[[Instance], bool]) -> Instance:
        """Wait until ``condition`` is true of the instance's record; return the record."""
        return await until(self.instance, condition)

    async def agent(self, inference_port: int, **env: str) -> Program:
        """Start an agent with the environment that the API provides for its instance."""
        return worker_agent(
            {
                "WORKER_FUNCTION__ID": self.record.function_id,
                "WORKER_FUNCTION__VERSION_ID": self.record.version_id,
                "WORKER_INFERENCE__PORT": str(inference_port),
                "WORKER_INFERENCE__MAX_CONCURRENCY": "4",
                "WORKER_HEALTH__PATH": "/health",
                "WORKER_HEALTH__INTERVAL_S": "0.1",
                "WORKER_ADMIN__LISTEN": "127.0.0.1:0",
                **await self.workers.environment(self.record),
                **env,
            }
        )


@asynccontextmanager
async def running_platform(
    nats: GuardedNats, *, lease_s: float = 3.0, token_s: float = 600.0
) -> AsyncIterator[Platform]:
    """Run the platform while the block runs; its store has one instance without a worker."""
    async with AsyncExitStack() as stack:
        credentials = nats.logins.gateway_credentials
        connection = NatsStoreConnection(NatsOptions((nats.url,), credentials_file=credentials))
        await connection.open(PATIENCE_S)
        stack.push_async_callback(connection.close)
        store = NatsStore(connection)
        await store.prepare()
        data = await stack.enter_async_context(connected(nats.url, nats.gateway_options))
        logins = NatsWorkerCredentials(
            LoginFiles(nats.logins.operator_seed, nats.logins.system_credentials, credentials),
            replace(OPTIONS, servers=(nats.url,)),
            [REGION],
            (nats.url,),
        )
        logins.start(tuple)
        stack.push_async_callback(logins.close)
        signer = TokenSigner(os.urandom(32))
        port = free_port()
        ports = _ports(store, data, logins, signer)
        workers = CountedWorkers(
            ports,
            WorkerOptions(
                f"http://127.0.0.1:{port}", {"WORKER_NATS__URLS": nats.url}, lease_s, token_s
            ),
        )
        platform = Platform(nats, store, data, workers, _api(store, signer), ports.mint, port)
        await store.put(platform.record, 0)
        await platform.up()
        stack.push_async_callback(platform.down)
        yield platform


@asynccontextmanager
async def running_inference(serve: Serve) -> AsyncIterator[tuple[RawServer, "Health"]]:
    """Run an inference server; the test sets the result of its health check."""
    health = Health()

    async def serve_healthy(peer: Peer) -> None:
        if (await peer.reader.readexactly(11)) == b"GET /health":
            status = b"200 OK" if health.is_good else b"503 Bad"
            await peer.send(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
        else:
            await serve(peer)

    server = RawServer(serve_healthy)
    await server.start()
    try:
        yield server, health
    finally:
        server.stop()


class Health:
    is_good = True


def _ports(
    store: Store, data: NatsConnection, credentials: NatsWorkerCredentials, signer: TokenSigner
) -> WorkerPorts:
    def token(worker: WorkerIdentity, now: float, lifetime_s: float) -> str:
        principal = worker_principal(worker)
        return mint(signer, principal, now=now, lifetime_s=lifetime_s, token_id="t")

    admin = JetStreamAdmin(data, [REGION], STREAMS)
    return WorkerPorts(store, token, admin.ensure, time.time, credentials)


def _api(store: Store, signer: TokenSigner) -> Api:
    model, queue = ReadModel(), SetQueue()

    async def shown(bucket: str, revision: int) -> bool:
        return True

    stores = AccountStores(store, shown)
    seal = seal_of(stores)
    return Api(
        authenticate=Authenticator(model, VerificationKeys(signer), BootstrapCheck()).authenticate,
        identity=Identity(CredentialStore(store, shown), signer, os.urandom),
        stores=stores,
        catalog=Catalog(model),
        clusters=CLUSTERS,
        queue=queue,
        requests=queue,
        secrets=OpenVault(),
        assets=no_assets(),
        telemetry_endpoints=TelemetryEndpoints(seal),
        registry_credentials=RegistryCredentials(seal),
        webhook_secrets=WebhookSecrets(store, SecretBox(os.urandom(32)), time.time, os.urandom),
        registrations=Registrations(store, time.time),
        clock=time.time,
        new_id=new_uuid,
        region=REGION,
    )
