"""Worker agents: they connect, tell how they are, and are gone when their lease ends.

Of an instance's record the reconciler writes one half (what it was started for, its phase) and this
module the other (connected, healthy, slots, busy, lease). The record is the admission: as long as
the reconciler keeps it, the worker may connect and gets new credentials, also while its version is
drained. A worker without one is told 404 and asks again.

Every answer says how many requests at a time the deployment asks of the instance now, so that
workers follow it while they run.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.workers import (
    ConnectAnswer,
    ConnectBody,
    HeartbeatAnswer,
    HeartbeatBody,
    NatsView,
)
from gateway.auth.scopes import WORKER
from gateway.auth.tokens import WorkerIdentity, worker_of
from gateway.domain.compare_and_set import compare_and_set
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Instance, InstanceKey, Record, RecordKey
from gateway.errors import Forbidden, NotFound
from queueing.nats.accounts.jwt import Credentials
from queueing.nats.accounts.users import WORKER_API

CONNECT_PATH = "/v2/nvcf/worker/connect"
HEARTBEAT_PATH = "/v2/nvcf/worker/heartbeat"
_EARLY = 5 / 6
"""Of a lease: while more is left, a heartbeat that says nothing new is not written."""


class Records(Protocol):
    """The store (`gateway.store.nats_kv.Store`); may raise `StoreUnavailable` and `Conflict`."""

    async def get(self, key: RecordKey) -> tuple[Record, int] | None: ...

    async def put(self, record: Record, revision: int | None = None) -> int: ...


class NatsLogins(Protocol):
    """Makes workers' credentials (`queueing.nats.accounts.claims.NatsAccounts`)."""

    async def issue(self, instance: Instance, expires_at: float) -> Credentials:
        """Return new credentials. Raises `queueing.interface.QueueUnavailable`."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What workers are told. Durations in seconds.

    ``api_url`` and ``nats_urls`` are addresses as workers reach them. Half of ``token_s`` is how
    long the API may be away before workers lose their login.
    """

    api_url: str
    nats_urls: tuple[str, ...]
    lease_s: float = 15.0
    token_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """What the routes of workers stand on, besides the `Api`.

    ``mint`` returns a token for an instance, from a time in Unix seconds on for so many seconds.
    ``open_queue`` makes a version's queue unless it exists, so that the worker finds it. Without
    ``logins`` workers log in to NATS as they are configured.
    """

    records: Records
    mint: Callable[[WorkerIdentity, float, float], str]
    open_queue: Callable[[str], Awaitable[object]]
    clock: Callable[[], float]
    logins: NatsLogins | None = None


class Workers:
    """The routes, and the environment by which an instance's worker finds them."""

    def __init__(self, ports: WorkerPorts, options: WorkerOptions) -> None:
        self._ports = ports
        self._options = options

    def routes(self) -> tuple[AnyRoute, ...]:
        """Return what `gateway.api.app.build_app` is to serve."""
        return (
            Route(
                "POST",
                CONNECT_PATH,
                self.connect,
                "Connect a worker",
                _TAG,
                (WORKER,),
                ConnectAnswer,
                ConnectBody,
            ),
            Route(
                "POST",
                HEARTBEAT_PATH,
                self.heartbeat,
                "Worker heartbeat",
                _TAG,
                (WORKER,),
                HeartbeatAnswer,
                HeartbeatBody,
            ),
        )

    async def environment(self, instance: Instance) -> Mapping[str, str]:
        """Return the settings with which an instance's worker is started."""
        worker = WorkerIdentity(
            instance.account, instance.function_id, instance.version_id, instance.instance_id
        )
        return {
            "WORKER_NATS__URLS": ",".join(self._options.nats_urls),
            "WORKER_CONTROL__URL": self._options.api_url,
            "WORKER_CONTROL__TOKEN": self._token(worker, self._ports.clock()),
            "WORKER_INSTANCE__ID": instance.instance_id,
        }

    async def connect(self, api: Api, call: Call[ConnectBody, None]) -> ConnectAnswer:
        """Take a worker in, or give it new credentials."""
        worker, body, options = worker_of(call.principal), call.body, self._options
        if (body.function_id, body.function_version_id, body.instance_id) != (
            worker.function_id,
            worker.version_id,
            worker.instance_id,
        ):
            raise Forbidden("The token is another instance's")
        now = self._ports.clock()
        instance = await self._change(worker, lambda one: connected(one, now, options.lease_s), now)
        await self._ports.open_queue(worker.version_id)
        nats = None
        if self._ports.logins is not None:
            login = await self._ports.logins.issue(instance, now + options.token_s)
            nats = NatsView(
                urls=list(options.nats_urls),
                jwt=login.jwt,
                seed=login.seed,
                api_prefix=WORKER_API,
            )
        return ConnectAnswer(
            region=api.region,
            nats=nats,
            token=self._token(worker, now),
            expires_in_seconds=options.token_s,
            lease_seconds=options.lease_s,
            max_request_concurrency=concurrency_of(api, instance),
        )

    async def heartbeat(self, api: Api, call: Call[HeartbeatBody, None]) -> HeartbeatAnswer:
        """Write down how a worker is, and renew its lease."""
        worker, body = worker_of(call.principal), call.body
        if body.instance_id != worker.instance_id:
            raise Forbidden("The token is another instance's")
        now, lease_s = self._ports.clock(), self._options.lease_s
        instance = await self._change(worker, lambda one: told(one, body, now, lease_s), now)
        return HeartbeatAnswer(
            lease_seconds=lease_s, max_request_concurrency=concurrency_of(api, instance)
        )

    async def _change(
        self, worker: WorkerIdentity, change: Callable[[Instance], Instance], now: float
    ) -> Instance:
        """Change our half of an instance's record, whoever changes the other half meanwhile."""
        key = InstanceKey(worker.version_id, worker.instance_id)

        async def read() -> tuple[Instance, int]:
            found = await self._ports.records.get(key)
            instance, revision = found if found is not None else (None, 0)
            if (
                not isinstance(instance, Instance)
                or instance.account != worker.account
                or instance.function_id != worker.function_id
            ):
                raise NotFound("The instance is not known")
            return instance, revision

        def update(instance: Instance) -> Instance:
            changed = change(instance)
            return changed if changed is instance else replace(changed, updated_at=timestamp(now))

        changed = await compare_and_set(read, update, self._ports.records.put)
        assert changed is not None
        return changed

    def _token(self, worker: WorkerIdentity, now: float) -> str:
        return self._ports.mint(worker, now, self._options.token_s)


def concurrency_of(api: Api, instance: Instance) -> int | None:
    """Return the requests at a time that are asked of ``instance`` now, `None` if not known.

    By this process's own picture of the store: an older one is put right by the next heartbeat.
    """
    deployment = api.catalog.deployment(instance.version_id)
    if deployment is None or deployment.deployment_id != instance.deployment_id:
        return None
    spec = deployment.spec(instance.spec_id)
    return None if spec is None else spec.concurrency


def connected(instance: Instance, now: float, lease_s: float) -> Instance:
    """Return the record of an instance whose worker has connected at ``now``, Unix seconds.

    Its health is not known before its first heartbeat, unless it has been here all the time.
    """
    was_here = instance.is_connected and now < instance.lease_until
    return replace(
        instance,
        is_connected=True,
        is_healthy=instance.is_healthy and was_here,
        lease_until=math.ceil(now + lease_s),
    )


def told(instance: Instance, beat: HeartbeatBody, now: float, lease_s: float) -> Instance:
    """Return the record after a heartbeat; the very same one when nothing has to be written.

    A worker that stops no longer counts as connected, but is waited for while it is busy.
    """
    changed = replace(
        instance,
        is_connected=not beat.stopping,
        is_healthy=beat.healthy,
        slots=0 if beat.stopping else beat.slots,
        busy=beat.busy,
    )
    is_early = instance.lease_until - now > lease_s * _EARLY
    if is_early and replace(changed, busy=instance.busy) == instance:
        # How many run matters to nobody; whether any does, to who stops idle instances.
        if (beat.busy > 0) == (instance.busy > 0):
            return instance
    return replace(changed, lease_until=math.ceil(now + lease_s))


_TAG = "workers"
