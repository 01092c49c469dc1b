"""The control plane of one gateway process: the REST API and the provisioning of instances."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from gateway.api.app import ROUTES, build_app
from gateway.api.nvcf_objects import NvcfObjects
from gateway.api.nvcf_presence import NvcfPresence
from gateway.api.nvcf_workers import NvcfLogins, NvcfTokens, NvcfWorkers
from gateway.api.renewing import LeaseRenewals
from gateway.api.route import Api
from gateway.api.routes.workers import READY_S, WorkerOptions, WorkerPorts, Workers
from gateway.app.credentials import CredentialChecker, jwt_options
from gateway.app.identity import given_secret, identity_of, master_of, show
from gateway.app.provisioning import Provisioning, cluster_groups
from gateway.app.webhook_parts import WebhookParts
from gateway.auth.registration import Registrations
from gateway.dispatch.api_server import ApiServer
from gateway.dispatch.heartbeats import TakeHeartbeat
from gateway.dispatch.locator import RequestLocator
from gateway.domain.catalog import Catalog
from gateway.domain.clusters import Clusters
from gateway.domain.leases import Leases
from gateway.domain.model import Change
from gateway.domain.readmodel import ReadModel
from gateway.objects.assets import Assets
from gateway.objects.large_responses import LargeResponseObjects
from gateway.provision.executor import LaunchCredentials
from gateway.settings import GatewaySettings
from gateway.store.account_store import AccountStores
from gateway.store.names import CONTROL
from gateway.store.records import Store
from gateway.store.watcher import Watcher
from gateway.telemetry.instances import watch_instances
from http1.client.pool import Connect
from http1.server.listener import ListenError
from queueing.interface import GatewayBroker, LoginCallout
from runtime.ids import new_uuid
from runtime.metrics import MetricRegistry
from runtime.tasks import spawn


class Changes:
    """Passes every change of the store to the models that follow it."""

    def __init__(self, *targets: Callable[[Change], None]) -> None:
        self._targets = list(targets)

    def add(self, target: Callable[[Change], None]) -> None:
        """Pass changes to ``target`` too, from now on."""
        self._targets.append(target)

    def apply(self, change: Change) -> None:
        """Pass one change on."""
        for target in self._targets:
            target(change)


class Process(NamedTuple):
    """The parts of its process that the control plane uses.

    ``url`` is the address of the process's API, empty if it has no TCP address. ``direct`` returns
    how many calls of a version workers have over channels.
    """

    broker: GatewayBroker
    requests: RequestLocator
    url: str
    direct: Callable[[str], int]
    assets: Assets
    large_responses: LargeResponseObjects


class ControlPlane:
    """The additional parts of a process with the role ``api`` or ``provision``.

    ``watcher`` feeds the read model too; ``credentials`` checks the tokens and keys that the API
    issues.
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
        """``is_first`` is true for the one process of a gateway that may provision instances.

        Raises `gateway.api.secrets.master_key.MasterKeyError` and
        `queueing.interface.CredentialsError`.
        """
        self._settings = settings
        self._store = store
        self._process = process
        self.catalog = Catalog(model)
        changes = Changes(self.catalog.apply)
        leases = Leases(changes.apply)
        self.watcher = Watcher(store, leases, CONTROL)
        self._master = master_of(settings.control)
        self._given_secret = given_secret(settings.control)
        self._stores = AccountStores(store, self.watcher.wait_until_shown)
        self._secrets = self._master.secret_store(self._stores)
        self._telemetry_endpoints = self._master.telemetry_endpoints(self._stores)
        self._registry_credentials = self._master.registry_credentials(self._stores)
        self._webhook_secrets = self._master.webhook_secrets(store)
        self._webhooks: WebhookParts | None = None
        if "api" in settings.roles:
            self._webhooks = WebhookParts(settings, store, self._webhook_secrets)
        self._registrations = Registrations(store, time.time)
        self.credentials = CredentialChecker(
            store,
            model,
            jwt_options(settings.jwt),
            self._master.signer,
            self._registrations.apply,
        )
        control = settings.control
        broker = process.broker
        self._worker_credentials = broker.worker_credentials()
        self._renewals = LeaseRenewals(store, leases, new_uuid(), control.worker_lease_s, time.time)
        self._workers = Workers(
            WorkerPorts(
                store,
                self._master.worker_token,
                broker.admin.ensure,
                time.time,
                self._worker_credentials,
                self._renewals,
            ),
            WorkerOptions(
                control.api_url or process.url,
                broker.worker_environment(),
                lease_s=control.worker_lease_s,
                token_s=control.worker_token_s,
                # Else a worker would give up on a model that the deployment still waits for.
                ready_s=max(READY_S, control.deploy_timeout_s),
            ),
        )
        self._tokens = NvcfTokens(self.credentials.authenticate, self._registrations, time.time)
        self._callout: LoginCallout | None = None
        if "api" in settings.roles:
            logins = NvcfLogins(self._tokens, self.catalog, control.worker_token_s)
            self._callout = broker.login_callout(logins.check)
        self._provisioning: Provisioning | None = None
        if is_first and "provision" in settings.roles:
            self._provisioning = Provisioning(
                store,
                broker,
                settings.provision,
                settings.clusters,
                LaunchCredentials(
                    self._secrets.of_version,
                    self._telemetry_endpoints.environment_of,
                    self._registry_credentials.logins_of,
                ),
                self._workers.environment,
            )
            self._provisioning.queues.count_direct(process.direct)
            if self._worker_credentials is not None:
                revoke = self._worker_credentials.remove
                self._provisioning.queues.on_removed(lambda version_id: revoke([version_id]))
            changes.add(self._provisioning.apply)

    def show_state(self, registry: MetricRegistry) -> None:
        """Declare the metrics of deployments and webhooks."""
        watch_instances(registry, self.catalog, time.time)
        if self._webhooks is not None:
            self._webhooks.show_state(registry)

    async def begin(self, stack: AsyncExitStack) -> None:
        """Prepare the store, and on the first start create the bootstrap secret if none is given.

        Raises `MasterKeyError`.
        """
        if self._worker_credentials is not None:
            self._worker_credentials.start(
                lambda: [one.version_id for one in self.catalog.deployments()]
            )
            stack.push_async_callback(self._worker_credentials.close)
        if self._callout is not None:
            self._callout.start()
            stack.push_async_callback(self._callout.close)
        await self._store.prepare()
        secret = await self._master.begin(self._store, self._given_secret)
        if secret is not None:
            show(secret)

    async def open_api(
        self, stack: AsyncExitStack, worker_url: str
    ) -> tuple[Connect, TakeHeartbeat]:
        """Return a function that connects to the API, which runs for the life of ``stack``.

        And one that takes heartbeats. Workers reach this process at ``worker_url``.
        """
        settings, process = self._settings, self._process
        control = settings.control
        identity = replace(
            identity_of(self._master, self._store, self.watcher.wait_until_shown),
            default_account=control.default_account,
            admin_token_s=control.admin_token_s,
            invocation_token_s=control.invocation_token_s,
        )
        api = Api(
            authenticate=self.credentials.authenticate,
            identity=identity,
            stores=self._stores,
            catalog=self.catalog,
            clusters=Clusters(cluster_groups(settings.clusters)),
            queue=process.broker.queue,
            requests=process.requests,
            assets=process.assets,
            telemetry_endpoints=self._telemetry_endpoints,
            registry_credentials=self._registry_credentials,
            webhook_secrets=self._webhook_secrets,
            registrations=self._registrations,
            secrets=self._secrets,
            clock=time.time,
            new_id=new_uuid,
            region=settings.queue.region,
            other_regions=settings.queue.other_regions,
            deploy_timeout_s=control.deploy_timeout_s,
            drain_timeout_s=control.drain_timeout_s,
            project_old_sdks=control.project_old_sdks,
            objects_url=settings.objects.url,
        )
        server = ApiServer(build_app(api, (*ROUTES, *self._workers.routes())))
        connect = await server.start()
        stack.push_async_callback(server.stop)
        if self._webhooks is not None:
            self._webhooks.start(stack)
        stack.callback(spawn(self._renewals.run(), "lease-renewals").cancel)
        if settings.worker_grpc.listen:
            await self._serve_grpc(api, stack, worker_url)
        return connect, partial(self._workers.take_heartbeat, api)

    async def _serve_grpc(self, api: Api, stack: AsyncExitStack, worker_url: str) -> None:
        """Serve ``nvcf.Worker``. Raises `ListenError`."""
        try:
            # Imported here: few gateways need it, and grpcio takes 20 MiB.
            from gateway.dispatch.nvcf_grpc import (  # noqa: PLC0415
                GrpcAddresses,
                WorkerGrpcServer,
            )
        except ImportError as error:
            raise ListenError(
                "worker_grpc.listen needs grpcio: pip install invocation-gateway[nvidia-workers]"
            ) from error
        found = self._settings.worker_grpc
        workers = NvcfWorkers(
            api,
            self._workers,
            self._tokens,
            self._master.signer,
            self._settings.control.worker_token_s,
        )
        objects = NvcfObjects(api, self._tokens, self._process.large_responses, worker_url)
        addresses = GrpcAddresses(tuple(map(str, found.listen)), found.certificate, found.key)
        server = WorkerGrpcServer(workers, objects, addresses)
        await server.start()
        stack.push_async_callback(server.stop)
        presence = NvcfPresence(
            api,
            self._workers,
            self._process.broker,
            self._settings.control.worker_lease_s,
        )
        stack.callback(spawn(presence.run(), "nvcf-presence").cancel)

    async def keep_instances(self, stack: AsyncExitStack) -> None:
        """Take part in leader election and provision while leading, for the life of ``stack``."""
        if self._provisioning is not None:
            await self._provisioning.start()
            stack.push_async_callback(self._provisioning.stop)
