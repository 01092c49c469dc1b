"""Heartbeats in the name of NVIDIA's workers, from what NATS shows (`gateway.domain.nvcf_health`).

Every gateway that can see the connections does so: a heartbeat that changes nothing is not written.
A worker that is not seen gets none, so that its lease ends. One whose token was revoked gets none
either and is disconnected; it cannot log in again.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from gateway.api.nvcf_workers import instance_id_of
from gateway.api.route import Api, Call
from gateway.api.routes.workers import Workers, concurrency_of
from gateway.api.schemas.workers import HeartbeatBody
from gateway.auth.tokens import WorkerIdentity, worker_principal
from gateway.domain.model import Instance
from gateway.domain.nvcf_health import QueueWatch, instance_name, share_of
from gateway.errors import GatewayError, NotFound
from queueing.interface import QueueAdmin, QueueError, WorkerConnection
from runtime.events import emit

HEARTBEATS_PER_LEASE = 3
_log = logging.getLogger("gateway.nvcf_workers")


class WorkerConnections(Protocol):
    """The connections of workers (`queueing.interface.GatewayBroker`)."""

    @property
    def admin(self) -> QueueAdmin: ...

    async def listening_workers(self, version_id: str) -> Sequence[WorkerConnection]: ...

    async def disconnect_worker(self, connection: WorkerConnection) -> None: ...


class NvcfPresence:
    """Watches the workers of all versions that have any."""

    def __init__(
        self, api: Api, workers: Workers, connections: WorkerConnections, lease_s: float
    ) -> None:
        """``lease_s`` is that of workers, in seconds."""
        self._api = api
        self._workers = workers
        self._connections = connections
        self._pause_s = lease_s / HEARTBEATS_PER_LEASE
        self._watches: dict[str, QueueWatch] = {}
        self._is_blind = False

    async def run(self) -> None:
        """Look again and again, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            catalog = self._api.catalog
            found = {
                deployment.version_id: named
                for deployment in catalog.deployments()
                if (named := nvcf_instances(catalog.instances(deployment.version_id)))
            }
            self._watches = {one: self._watches.get(one, QueueWatch()) for one in found}
            for version_id, instances in found.items():
                try:
                    await self._look(version_id, instances, loop.time())
                except (GatewayError, QueueError) as error:
                    if not self._is_blind:
                        emit(_log, "nvcf_workers.not_seen", logging.WARNING, error=str(error))
                    self._is_blind = True
                else:
                    self._is_blind = False
            await asyncio.sleep(self._pause_s)

    async def _look(self, version_id: str, instances: Mapping[str, Instance], now: float) -> None:
        """Send a heartbeat for each of ``instances``, by their names, that is connected."""
        load = await self._connections.admin.load(version_id)
        healthy = self._watches[version_id].is_served(load.waiting, load.leased, now)
        present = []
        for connection in await self._connections.listening_workers(version_id):
            instance = instances.get(instance_name(version_id, connection.name))
            if instance is None:
                continue
            if self._api.registrations.is_revoked(version_id, instance.registered_with):
                await self._connections.disconnect_worker(connection)
            else:
                present.append(instance)
        for instance in present:
            slots = concurrency_of(self._api, instance) or 1
            body = HeartbeatBody.model_validate(
                {
                    "instanceId": instance.instance_id,
                    "healthy": healthy,
                    "slots": slots,
                    "busy": share_of(load.leased, len(present), slots),
                }
            )
            own = WorkerIdentity(
                instance.account, instance.function_id, version_id, instance.instance_id
            )
            call: Call[HeartbeatBody, None] = Call(worker_principal(own), {}, None, body)
            with suppress(NotFound):
                await self._workers.heartbeat(self._api, call)


def nvcf_instances(instances: Collection[Instance]) -> dict[str, Instance]:
    """Return those of ``instances`` that are NVIDIA's workers, by the names that these give."""
    found = {}
    for instance in instances:
        name = instance.facts.get("pod")
        if instance.is_external and isinstance(name, str) and "agentVersion" not in instance.facts:
            if instance_id_of(instance.version_id, name) == instance.instance_id:
                found[name] = instance
    return found
