"""The control plane of one gateway process: the REST API, and the keeping of instances."""

import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import NamedTuple

from gateway.api.app import ROUTES, build_app
from gateway.api.route import Api
from gateway.api.routes.workers import WorkerOptions, WorkerPorts, Workers
from gateway.api.secrets.master_key import MasterKeyError
from gateway.app.credentials import Credentials, jwt_options
from gateway.app.identity import (
    Master,
    identity_of,
    identity_routes,
    show,
)
from gateway.app.options import data_options, stream_settings
from gateway.app.provisioning import Provisioning, cluster_groups
from gateway.app.worker_logins import LoginFiles, WorkerLogins
from gateway.dispatch.api_server import ApiServer
from gateway.dispatch.locator import LiveRequests
from gateway.domain.catalog import Catalog
from gateway.domain.clusters import Clusters
from gateway.domain.model import Change
from gateway.domain.readmodel import ReadModel
from gateway.settings import GatewaySettings
from gateway.store.account_store import AccountStores
from gateway.store.names import CONTROL
from gateway.store.nats_kv import Store
from gateway.store.watcher import Watcher
from http1.client.pool import Connect
from queueing.nats.connection import Connection
from queueing.nats.jetstream import JetStream
from queueing.nats.login import LoginError
from queueing.nats.queue import JetStreamQueue
from wire.ids import uuid4_text


class Changes:
    """Gives every change of the store to the models that follow it."""

    def __init__(self, *targets: Callable[[Change], None]) -> None:
        self._targets = list(targets)

    def add(self, target: Callable[[Change], None]) -> None:
        """Give what comes from now on to ``target`` too."""
        self._targets.append(target)

    def apply(self, change: Change) -> None:
        """Take one change."""
        for target in self._targets:
            target(change)


class Process(NamedTuple):
    """What the control plane needs to know of its process. ``url`` is where it is called."""

    data: Connection
    queue: JetStreamQueue
    requests: LiveRequests
    url: str


class ControlPlane:
    """What a process with the role ``api`` or ``provision`` has beside invocations.

    ``watcher`` feeds the read model too, and ``credentials`` checks what the API hands out.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        store: Store,
        model: ReadModel,
        process: Process,
        *,
        is_first: bool,
    ) -> None:
        """``is_first``: of the processes of one gateway, this one may keep instances.

        Raises `gateway.api.secrets.master_key.MasterKeyError`.
        """
        self._settings = settings
        self._store = store
        self._process = process
        self._jetstream = JetStream(process.data)
        self.catalog = Catalog(model)
        changes = Changes(self.catalog.apply)
        self.watcher = Watcher(store, changes, CONTROL)
        self._master = Master(settings.control.secrets_key_file)
        self._stores = AccountStores(store, self.watcher.reached)
        self._vault = self._master.vault(self._stores)
        self.credentials = Credentials(store, model, jwt_options(settings.jwt), self._master.signer)
        control = settings.control
        self._logins = worker_logins(settings)
        self._workers = Workers(
            WorkerPorts(
                store, self._master.worker_token, self._open_queue, time.time, self._logins
            ),
            WorkerOptions(
                control.api_url or process.url,
                control.nats_urls or settings.nats.urls,
                lease_s=control.worker_lease_s,
                token_s=control.worker_token_s,
            ),
        )
        self._provisioning: Provisioning | None = None
        if is_first and "provision" in settings.roles:
            self._provisioning = Provisioning(
                store,
                process.data,
                settings.queue.region,
                (settings.provision, settings.clusters),
                self._vault.of_version,
                self._workers.environment,
            )
            if self._logins is not None:
                logins = self._logins
                self._provisioning.queues.on_removed(lambda version_id: logins.remove([version_id]))
            changes.add(self._provisioning.apply)

    async def begin(self, stack: AsyncExitStack) -> None:
        """Do what the first start of all does, once the store is there. Raises `MasterKeyError`."""
        if self._logins is not None:
            self._logins.start()
            stack.push_async_callback(self._logins.close)
        await self._store.prepare()
        secret = await self._master.begin(self._store)
        if secret is not None:
            show(secret)

    async def open_api(self, stack: AsyncExitStack) -> Connect:
        """Return what connects to the API, which serves for the life of ``stack``."""
        settings, process = self._settings, self._process
        control = settings.control
        api = Api(
            authenticate=self.credentials.authenticate,
            stores=self._stores,
            catalog=self.catalog,
            clusters=Clusters(cluster_groups(settings.clusters)),
            queue=process.queue,
            requests=process.requests,
            secrets=self._vault,
            clock=time.time,
            new_id=lambda: uuid4_text(os.urandom(16)),
            region=settings.queue.region,
            deploy_timeout_s=control.deploy_timeout_s,
            drain_timeout_s=control.drain_timeout_s,
            project_old_sdks=control.project_old_sdks,
        )
        identity = replace(
            identity_of(self._master, self._store, self.watcher.reached, self._vault),
            default_account=control.default_account,
            admin_token_s=control.admin_token_s,
            invocation_token_s=control.invocation_token_s,
        )
        routes = (*ROUTES, *identity_routes(identity), *self._workers.routes())
        server = ApiServer(build_app(api, routes))
        connect = await server.start()
        stack.push_async_callback(server.stop)
        return connect

    async def keep_instances(self, stack: AsyncExitStack) -> None:
        """Try to lead, and keep the instances while leading, for the life of ``stack``."""
        if self._provisioning is not None:
            await self._provisioning.start()
            stack.push_async_callback(self._provisioning.stop)

    async def _open_queue(self, version_id: str) -> None:
        await self._jetstream.ensure(
            self._settings.queue.region, version_id, stream_settings(self._settings.queue)
        )


def worker_logins(settings: GatewaySettings) -> WorkerLogins | None:
    """Return what makes workers' NATS logins; None unless the files for it are configured.

    Raises `gateway.api.secrets.master_key.MasterKeyError` for unusable files.
    """
    nats = settings.nats
    if not (nats.operator_seed_file and nats.system_credentials_file and nats.credentials_file):
        return None
    files = LoginFiles(nats.operator_seed_file, nats.system_credentials_file, nats.credentials_file)
    try:
        return WorkerLogins(files, data_options(nats), settings.queue.region)
    except (OSError, ValueError, LoginError) as error:
        raise MasterKeyError(f"workers' NATS logins cannot be made: {error}") from error
