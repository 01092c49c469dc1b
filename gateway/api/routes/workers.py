"""The routes for worker agents: connect, and the heartbeats that renew the lease.

An external worker registers first: it connects with a registration token, which makes the record of
an instance (`gateway.auth.registration`), and goes on as that. A response tells it to stop.

The reconciler writes one half of an instance's record (deployment, phase) and this module the other
(connected, healthy, slots, busy, lease). A worker may connect, and gets new credentials, as long as
the reconciler keeps the record, also while its version is drained. A worker without a record gets
404 and repeats the call. A heartbeat of an external worker that changes nothing is not written to
its record: there may be thousands of them (`gateway.api.renewing`).

Every response contains the number of requests at a time that the deployment asks of the instance,
so that running workers follow a changed deployment.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import orjson

from gateway.api.access import require_scope
from gateway.api.registering import Vacancies, stop_reason
from gateway.api.renewing import LeaseRenewals
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.workers import (
    MAX_SLOTS,
    ConnectBody,
    ConnectResponse,
    HeartbeatBody,
    HeartbeatResponse,
)
from gateway.auth.scopes import WORKER
from gateway.auth.tokens import REGISTRATION, WorkerIdentity, registration_of, worker_of
from gateway.domain.agent_settings import agent_settings, port_settings
from gateway.domain.compare_and_set import compare_and_set
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import (
    DetailsKey,
    Instance,
    InstanceKey,
    Phase,
    Record,
    RecordKey,
    VersionDetails,
)
from gateway.domain.renewals import Renewal
from gateway.errors import BadRequest, Conflict, Forbidden, GatewayError, Gone, NotFound
from queueing.interface import WorkerCredentials
from wire.ids import parse_uuid
from wire.worker_api import CONNECT_PATH, HEARTBEAT_PATH

_EARLY = 5 / 6
"""The part of a lease above which a heartbeat without changes is not written."""
_EXTERNAL_LEASE = 4 / 3
"""An external worker's lease is that much longer, for the time until a renewal is in the store."""
READY_S = 1800.0
"""Seconds that a worker waits for the first healthy response of its inference server."""


class InstanceRecords(Protocol):
    """The store (`gateway.store.records.Store`); may raise `StoreUnavailable` and `Conflict`."""

    async def get(self, key: RecordKey) -> tuple[Record, int] | None: ...

    async def put(self, record: Record, revision: int | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Addresses and durations for workers, in seconds.

    ``api_url`` is the API's as workers reach it, ``broker_environment`` as from
    `queueing.interface.GatewayBroker.worker_environment`. The API may be unreachable for half of
    ``token_s`` before workers lose their login. A worker waits ``ready_s`` for its inference server
    to load a model.
    """

    api_url: str
    broker_environment: Mapping[str, str]
    lease_s: float = 15.0
    token_s: float = 3600.0
    ready_s: float = READY_S


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """The ports of the routes of workers, besides the `Api`.

    ``mint`` returns a token for an instance; its arguments are the present time in Unix seconds and
    the token's life in seconds. ``ensure_queue`` creates a version's queue unless it exists.
    Without ``credentials`` workers log in to the broker as they are configured. Without
    ``renewals`` the heartbeats of external workers are written as those of others.
    """

    records: InstanceRecords
    mint: Callable[[WorkerIdentity, float, float], str]
    ensure_queue: Callable[[str], Awaitable[object]]
    clock: Callable[[], float]
    credentials: WorkerCredentials | None = None
    renewals: LeaseRenewals | None = None


class PlainHeartbeat(NamedTuple):
    """A heartbeat of a worker that goes on."""

    instance_id: str
    healthy: bool
    slots: int
    busy: int


class Workers:
    """The routes, and the environment with which an instance's worker finds them."""

    def __init__(self, ports: WorkerPorts, options: WorkerOptions) -> None:
        self._ports = ports
        self._options = options
        self._vacancies = Vacancies()
        self._encoded: dict[int | None, bytes] = {}

    def routes(self) -> tuple[AnyRoute, ...]:
        """Return the routes for `gateway.api.app.build_app`."""
        return (
            Route(
                "POST",
                CONNECT_PATH,
                self.connect,
                "Connect a worker",
                _TAG,
                (WORKER,),
                ConnectResponse,
                ConnectBody,
                changes=False,
            ),
            Route(
                "POST",
                HEARTBEAT_PATH,
                self.heartbeat,
                "Worker heartbeat",
                _TAG,
                (WORKER,),
                HeartbeatResponse,
                HeartbeatBody,
                changes=False,
            ),
        )

    async def ensure_queue(self, version_id: str) -> None:
        """Create a version's queue unless it exists."""
        await self._ports.ensure_queue(version_id)

    async def environment(self, instance: Instance) -> Mapping[str, str]:
        """Return the environment with which an instance's worker is started."""
        worker = WorkerIdentity(
            instance.account, instance.function_id, instance.version_id, instance.instance_id
        )
        return {
            **self._options.broker_environment,
            "WORKER_CONTROL__URL": self._options.api_url,
            "WORKER_CONTROL__TOKEN": self._token(worker, self._ports.clock()),
            "WORKER_INSTANCE__ID": instance.instance_id,
            "WORKER_HEALTH__READY_TIMEOUT_S": f"{self._options.ready_s:.0f}",
        }

    async def connect(self, api: Api, call: Call[ConnectBody, None]) -> ConnectResponse:
        """Register a worker as connected, and give it new credentials."""
        if call.principal.kind == REGISTRATION:
            return await self._register(api, call)
        worker, body, options = worker_of(call.principal), call.body, self._options
        if (body.function_id, body.function_version_id, body.instance_id) != (
            worker.function_id,
            worker.version_id,
            worker.instance_id,
        ):
            raise Forbidden("The token is another instance's")
        now = self._ports.clock()
        facts = facts_of(body)
        instance = await self._change(
            worker, lambda record: apply_connect(record, now, options.lease_s, facts), now
        )
        if api.registrations.is_revoked(worker.version_id, instance.registered_with):
            raise Forbidden("The registration token was revoked")
        await self._ports.ensure_queue(worker.version_id)
        credentials: Mapping[str, object] = {}
        if self._ports.credentials is not None:
            credentials = await self._ports.credentials.issue(
                instance.version_id,
                instance.deployment_id,
                instance.instance_id,
                now + options.token_s,
            )
        return ConnectResponse.model_validate(
            {
                **credentials,
                "region": api.region,
                "other_regions": list(api.other_regions) or None,
                "token": self._token(worker, now),
                "expires_in_seconds": options.token_s,
                "lease_seconds": options.lease_s,
                "max_request_concurrency": concurrency_of(api, instance),
                "stop": stop_reason(api, instance),
            }
        )

    async def _register(self, api: Api, call: Call[ConnectBody, None]) -> ConnectResponse:
        """Make an external worker an instance, or the one again that it was.

        A worker does so whose record was lost, or whose own token has ended. Raises `Forbidden`
        for a revoked token, `Gone` for a version that was deleted, and `Conflict` as long as the
        version has no place for it.
        """
        token, body, records = registration_of(call.principal), call.body, self._ports.records
        named = (body.function_id or token.function_id, body.function_version_id)
        if named not in {(token.function_id, token.version_id), (token.function_id, None)}:
            raise Forbidden("The token is for another version")
        instance_id = _instance_id_of(api, body)
        now, options = self._ports.clock(), self._options
        found = await records.get(DetailsKey(token.function_id, token.version_id))
        details = found[0] if found is not None else None
        if not isinstance(details, VersionDetails) or details.account != token.account:
            raise Gone("The version was deleted")
        await api.registrations.check(token)
        deployment, spec = await self._vacancies.take(api, records, token, instance_id, now)
        instance = Instance(
            instance_id,
            deployment.deployment_id,
            spec.spec_id,
            deployment.function_id,
            deployment.version_id,
            token.account,
            spec.gpu,
            spec.instance_type,
            spec.backend,
            Phase.STARTING,
            created_at=timestamp(now),
            updated_at=timestamp(now),
            is_connected=True,
            lease_until=math.ceil(now + options.lease_s),
            registered_with=token.subject,
            facts=facts_of(body) or {},
        )
        try:
            await self._record(instance, now)
        except GatewayError:
            self._vacancies.give_back(token.version_id, instance_id)
            raise
        worker = WorkerIdentity(
            token.account, instance.function_id, instance.version_id, instance_id
        )
        return ConnectResponse(
            region=api.region,
            other_regions=list(api.other_regions) or None,
            token=self._token(worker, now),
            expires_in_seconds=options.token_s,
            lease_seconds=options.lease_s,
            max_request_concurrency=spec.concurrency,
            instance_id=instance_id,
            function_id=instance.function_id,
            function_version_id=instance.version_id,
            environment={
                **_elsewhere(options.broker_environment),
                **agent_settings(details.spec),
                **port_settings(details.spec),
                "WORKER_INSTANCE__TYPE": spec.instance_type,
                "WORKER_INSTANCE__BACKEND": spec.backend,
                "WORKER_INFERENCE__MAX_CONCURRENCY": str(spec.concurrency),
                "WORKER_HEALTH__READY_TIMEOUT_S": f"{options.ready_s:.0f}",
            },
        )

    async def _record(self, instance: Instance, now: float) -> None:
        """Write the record of a worker that registers, unless it only lacks a token.

        Then its record has a lease. Only the worker knows the id of its instance, so another one
        with its registration token is it. Raises `Conflict` if the instance is another one's, which
        ends a worker that runs: that the reconciler has written in between does not.
        """
        key = InstanceKey(instance.version_id, instance.instance_id)

        async def read() -> tuple[Record | None, int]:
            return await self._ports.records.get(key) or (None, 0)

        def take(before: Record | None) -> Record:
            if not isinstance(before, Instance):
                return instance
            has_lease = now < self._current(before).lease_until
            is_own = before.registered_with == instance.registered_with
            if not before.is_external or (has_lease and not is_own):
                raise Conflict("Another worker is this instance")
            return before if has_lease else instance

        await compare_and_set(read, take, self._ports.records.put)

    async def heartbeat(self, api: Api, call: Call[HeartbeatBody, None]) -> HeartbeatResponse:
        """Store the state of a worker, and renew its lease."""
        worker, body = worker_of(call.principal), call.body
        if body.instance_id != worker.instance_id:
            raise Forbidden("The token is another instance's")
        plain = PlainHeartbeat(body.instance_id, body.healthy, body.slots, body.busy)
        is_plain = not (body.stopping or body.gone)
        renewed = self._renew(api, worker, plain) if is_plain else None
        if renewed is not None:
            return self._renewed(api, renewed)
        now, lease_s = self._ports.clock(), self._options.lease_s
        instance = await self._change(
            worker, lambda record: apply_heartbeat(record, body, now, lease_s), now
        )
        if body.gone:
            self._vacancies.give_back(worker.version_id, worker.instance_id)
        return self._renewed(api, instance)

    def take_heartbeat(self, api: Api, authorization: bytes | None, body: bytes) -> bytes | None:
        """Take a heartbeat that only renews a lease; return the body of the response.

        `None` for any other, also an invalid one: `heartbeat` is what responds to it.
        """
        heartbeat = read_plain(body)
        if heartbeat is None:
            return None
        try:
            principal = api.authenticate(authorization, api.clock())
            require_scope(principal, (WORKER,))
            worker = worker_of(principal)
        except GatewayError:
            return None
        if heartbeat.instance_id != worker.instance_id:
            return None
        instance = self._renew(api, worker, heartbeat)
        return None if instance is None else self._renewed_bytes(api, instance)

    def _renew(
        self, api: Api, worker: WorkerIdentity, heartbeat: PlainHeartbeat
    ) -> Instance | None:
        """Note a heartbeat that only renews a lease; `None` for one that has to be written.

        What the record says is taken from this process's catalog. If that is not up to date, the
        next heartbeat corrects it.
        """
        renewals = self._ports.renewals
        instance = api.catalog.instance(worker.version_id, worker.instance_id)
        if renewals is None or not renewals.is_storing or instance is None:
            return None
        if not _is_of(instance, worker) or not instance.is_external:
            return None
        if not is_renewal(instance, heartbeat):
            return None
        lease_until = math.ceil(self._ports.clock() + self._options.lease_s * _EXTERNAL_LEASE)
        renewals.renew(instance.instance_id, Renewal(lease_until, heartbeat.busy))
        return instance

    def _renewed(self, api: Api, instance: Instance) -> HeartbeatResponse:
        return HeartbeatResponse(
            lease_seconds=self._options.lease_s,
            max_request_concurrency=concurrency_of(api, instance),
            stop=stop_reason(api, instance),
        )

    def _renewed_bytes(self, api: Api, instance: Instance) -> bytes:
        """Return the response as the API encodes it. Few workers are to stop: few differ."""
        stop, concurrency = stop_reason(api, instance), concurrency_of(api, instance)
        known = self._encoded.get(concurrency) if stop is None else None
        if known is None:
            response = self._renewed(api, instance)
            known = response.model_dump_json(by_alias=True, exclude_none=True).encode()
            if stop is None:
                self._encoded[concurrency] = known
        return known

    def _current(self, stored: Instance) -> Instance:
        """Return an instance with the lease that its worker has now."""
        renewals = self._ports.renewals
        return stored if renewals is None else renewals.current(stored)

    async def _change(
        self, worker: WorkerIdentity, change: Callable[[Instance], Instance], now: float
    ) -> Instance:
        """Change the worker's half of an instance's record; the other half is the reconciler's."""
        key = InstanceKey(worker.version_id, worker.instance_id)

        async def read() -> tuple[Instance, int]:
            found = await self._ports.records.get(key)
            instance, revision = found if found is not None else (None, 0)
            if not isinstance(instance, Instance) or not _is_of(instance, worker):
                raise NotFound("The instance is not known")
            return self._current(instance), revision

        def update(instance: Instance) -> Instance:
            changed = change(instance)
            return changed if changed is instance else replace(changed, updated_at=timestamp(now))

        changed = await compare_and_set(read, update, self._ports.records.put)
        assert changed is not None
        return changed

    def _token(self, worker: WorkerIdentity, now: float) -> str:
        return self._ports.mint(worker, now, self._options.token_s)


def _is_of(instance: Instance, worker: WorkerIdentity) -> bool:
    return (instance.account, instance.function_id) == (worker.account, worker.function_id)


def concurrency_of(api: Api, instance: Instance) -> int | None:
    """Return the number of requests at a time for ``instance``, `None` if it is not known.

    It comes from this process's catalog. If that is not up to date, the next heartbeat corrects it.
    """
    deployment = api.catalog.deployment(instance.version_id)
    if deployment is None or deployment.deployment_id != instance.deployment_id:
        return None
    spec = deployment.spec(instance.spec_id)
    return None if spec is None else spec.concurrency


def _elsewhere(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the broker's settings for another machine, which has no file of this one."""
    return {name: value for name, value in environment.items() if not name.endswith("_FILE")}


def facts_of(body: ConnectBody) -> Mapping[str, object] | None:
    """Return what a worker tells of itself, in the form of the API; `None` if it does not say."""
    if body.worker is None:
        return None
    return body.worker.model_dump(mode="json", by_alias=True, exclude_none=True)


def _instance_id_of(api: Api, body: ConnectBody) -> str:
    """Return the id of the instance that a worker registers as."""
    if body.instance_id is None:
        return api.new_id()
    found = parse_uuid(body.instance_id.encode())
    if found is None:
        raise BadRequest("instanceId must be the UUID that the worker was given")
    return found


def apply_connect(
    instance: Instance, now: float, lease_s: float, facts: Mapping[str, object] | None = None
) -> Instance:
    """Return the record of an instance whose worker has connected at ``now``, Unix seconds.

    Its health is unknown before its first heartbeat, unless its lease has not ended.
    """
    has_lease = instance.is_connected and now < instance.lease_until
    return replace(
        instance,
        is_connected=True,
        is_healthy=instance.is_healthy and has_lease,
        lease_until=math.ceil(now + lease_s),
        facts=instance.facts if facts is None else facts,
    )


_PLAIN = {"instanceId": str, "healthy": bool, "slots": int, "busy": int}
"""The members of a `PlainHeartbeat`, in its order."""


def read_plain(body: bytes) -> PlainHeartbeat | None:
    """Return a heartbeat in the form in which agents send it, `None` for anything else.

    A tenth of what `HeartbeatBody` takes, which reads every other form and refuses bad ones.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    # As many colons as members: none is there twice, and none is an object.
    if type(document) is not dict or body.count(b":") != len(document):
        return None
    stopping = document.pop("stopping", False)
    if stopping is not False or document.keys() != _PLAIN.keys():
        return None
    if any(type(document[name]) is not kind for name, kind in _PLAIN.items()):
        return None
    found = PlainHeartbeat(*(document[name] for name in _PLAIN))
    return found if 0 <= found.slots <= MAX_SLOTS and 0 <= found.busy <= MAX_SLOTS else None


def is_renewal(instance: Instance, heartbeat: PlainHeartbeat) -> bool:
    """Whether a heartbeat says of the instance what its record says, but for ``busy``."""
    stored = (instance.is_healthy, instance.slots)
    return instance.is_connected and stored == (heartbeat.healthy, heartbeat.slots)


def apply_heartbeat(
    instance: Instance, heartbeat: HeartbeatBody, now: float, lease_s: float
) -> Instance:
    """Return the record after a heartbeat; the same object when nothing has to be written.

    A worker that stops no longer counts as connected, but its instance is kept while it is busy.
    The lease of one that is gone ends at once.
    """
    if heartbeat.gone:
        return replace(
            instance,
            is_connected=False,
            is_healthy=False,
            slots=0,
            busy=0,
            lease_until=min(instance.lease_until, math.floor(now)),
        )
    changed = replace(
        instance,
        is_connected=not heartbeat.stopping,
        is_healthy=heartbeat.healthy,
        slots=0 if heartbeat.stopping else heartbeat.slots,
        busy=heartbeat.busy,
    )
    if instance.is_external:
        lease_s *= _EXTERNAL_LEASE
    is_early = instance.lease_until - now > lease_s * _EARLY
    if is_early and replace(changed, busy=instance.busy) == instance:
        # Only whether any request is in progress matters: idle instances are stopped.
        if (heartbeat.busy > 0) == (instance.busy > 0):
            return instance
    return replace(changed, lease_until=math.ceil(now + lease_s))


_TAG = "workers"
