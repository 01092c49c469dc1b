"""The REST API with every kind of credential, assembled as in a gateway process."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp.test_utils import TestServer

from gateway.api import bootstrap
from gateway.api.app import ROUTES, build_app
from gateway.api.renewing import LeaseRenewals
from gateway.api.route import Api
from gateway.api.routes.workers import WorkerOptions, WorkerPorts, Workers
from gateway.api.secrets.secret_store import SecretStore
from gateway.app.credentials import CredentialChecker, JwtOptions
from gateway.app.identity import Master, identity_of
from gateway.auth.jwt import Issuer
from gateway.auth.registration import Registrations
from gateway.domain.leases import Leases
from gateway.store.account_store import AccountStores
from gateway.store.names import CONTROL
from gateway.store.open import make_store
from gateway.store.options import options_at
from gateway.store.records import Store
from gateway.store.watcher import Watcher
from runtime.ids import new_uuid
from runtime.tasks import spawn
from tests.support.control import CLUSTERS, Client, ControlPlane, SetQueue, WatchedCatalog
from tests.support.jwks import AUDIENCE, NAME, TokenIssuer
from tests.support.objects import no_assets
from tests.support.waiting import PATIENCE_S, until

DEFAULT_ACCOUNT = "nvcf-default"
"""Account whose admin tokens may also set up other accounts."""
LEASE_S = 6.0
"""Short: what renews it is in the store within a second."""


class IdentityPlane(ControlPlane):
    """A control plane with its credentials; a test advances its time by ``clock.ahead_s``."""

    def __init__(
        self,
        store: Store,
        api: Api,
        catalog: WatchedCatalog,
        session: aiohttp.ClientSession,
        secret_store: SecretStore,
        secret: str,
        workers: Workers,
    ) -> None:
        super().__init__(store, api, catalog, session)
        self.secret_store = secret_store
        self.secret = secret
        """The bootstrap secret."""
        self.workers = workers

    def holder(self, credential: str) -> Client:
        """Return a client that sends ``credential`` as its bearer token."""
        return Client(self.session, credential)

    async def until_revoked(self, version_id: str, token_id: str) -> None:
        """Wait until this process knows that a registration token was revoked."""
        await until(lambda: self.api.registrations.is_revoked(version_id, token_id))

    async def admin(self, nca_id: str) -> Client:
        """Return a client with an admin token of the account ``nca_id``."""
        response = await self.holder(self.secret).post("/v1/admin/keys", {"nca_id": nca_id})
        assert response.status == 200, response
        return self.holder(response.body["value"])


async def _no_queue(version_id: str) -> None:
    """Create no queue: no test here has a worker that pulls from it."""


class Clock:
    """Unix time in seconds, plus an offset that a test sets."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@asynccontextmanager
async def identity_plane(
    url: str, key_file: Path, issuer: TokenIssuer | None = None, clock: Clock | None = None
) -> AsyncIterator[IdentityPlane]:
    """Serve the API on the store at ``url`` while the block runs."""
    store = make_store(options_at([url], "test"))
    await store.open(PATIENCE_S)
    await store.prepare()
    master = Master(key_file)
    at = "2026-01-01T00:00:00.000000Z"
    secret = await master.begin(store) or await bootstrap.reset(store, os.urandom(32), at)
    catalog = WatchedCatalog()
    leases = Leases(catalog.apply)
    watcher = Watcher(store, leases, CONTROL)
    watcher.start()
    jwt = None if issuer is None else JwtOptions(Issuer(NAME, (AUDIENCE,)), issuer.url)
    registrations = Registrations(store, clock or time.time)
    credentials = CredentialChecker(store, catalog.model, jwt, master.signer, registrations.apply)
    credentials.start()
    stores = AccountStores(store, watcher.wait_until_shown)
    secret_store = master.secret_store(stores)
    queue = SetQueue()
    api = Api(
        authenticate=credentials.authenticate,
        identity=identity_of(master, store, watcher.wait_until_shown),
        stores=stores,
        catalog=catalog,
        clusters=CLUSTERS,
        queue=queue,
        requests=queue,
        secrets=secret_store,
        assets=no_assets(),
        telemetry_endpoints=master.telemetry_endpoints(stores),
        registry_credentials=master.registry_credentials(stores),
        webhook_secrets=master.webhook_secrets(store),
        registrations=registrations,
        clock=clock or time.time,
        new_id=new_uuid,
    )
    renewals = LeaseRenewals(store, leases, new_uuid(), LEASE_S, time.time)
    renewing = spawn(renewals.run(), "lease-renewals")
    workers = Workers(
        WorkerPorts(store, master.worker_token, _no_queue, time.time, renewals=renewals),
        WorkerOptions(
            "http://not.called",
            {"WORKER_NATS__URLS": url, "WORKER_NATS__CA_FILE": "/here/ca.pem"},
            lease_s=LEASE_S,
        ),
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await watcher.loaded.wait()
            await credentials.meta.loaded.wait()
        async with (
            TestServer(build_app(api, (*ROUTES, *workers.routes()))) as server,
            aiohttp.ClientSession(server.make_url("/")) as session,
        ):
            plane = IdentityPlane(store, api, catalog, session, secret_store, secret, workers)
            plane.url = str(server.make_url("")).rstrip("/")
            yield plane
    finally:
        renewing.cancel()
        await credentials.stop()
        await watcher.stop()
        await store.close()
