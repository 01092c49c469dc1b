"""A gateway process's access to NATS: one connection for queue, administration and bus."""

import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from queueing.interface import (
    POLL_RECEIPT_S,
    CredentialsError,
    LoginCallout,
    LoginCheck,
    WorkerConnection,
    WorkerCredentials,
)
from queueing.nats.admin import JetStreamAdmin
from queueing.nats.bus import NatsBus
from queueing.nats.connection import NatsConnection
from queueing.nats.jetstream import StreamSettings
from queueing.nats.login import ConnectionOptions, Login
from queueing.nats.metrics import register_connection, register_queue
from queueing.nats.polls import NatsPolls
from queueing.nats.presence import OWN_ACCOUNT, listening_workers
from queueing.nats.queue import JetStreamQueue
from queueing.nats.settings import GatewayNatsSettings
from queueing.own_requests import queue_limits
from queueing.settings import QueueSettings
from runtime.metrics import MetricRegistry

if TYPE_CHECKING:
    from queueing.nats.accounts.callout import NatsCallout
    from queueing.nats.accounts.credentials import LoginFiles

_RECONNECT_MAX_S = 0.75
_MAX_LEASED = 100_000
"""Requests of one queue that are leased at once, at most: JetStream's ``max_ack_pending``."""
_MAX_BROKER_DELIVERIES = 10_000
"""A backstop: JetStream counts what was given back too, so `QueueLimits.max_runs` decides."""


class NatsGatewayBroker:
    """A `queueing.interface.GatewayBroker`."""

    def __init__(
        self,
        nats: GatewayNatsSettings,
        queue: QueueSettings,
        registry: MetricRegistry,
        process: int,
        worker_urls: tuple[str, ...],
    ) -> None:
        """``process`` is the number in the request ids of this process.

        ``worker_urls`` are the servers' as workers reach them, empty if they are ``nats.urls``.
        """
        self._nats = nats
        self._registry = registry
        self._callout: NatsCallout | None = None
        self._regions = (queue.region, *queue.other_regions)
        self._worker_urls = worker_urls or nats.urls
        self._connection = NatsConnection(connection_options(nats))
        streams = stream_settings(queue, nats.region_tag)
        self.queue = JetStreamQueue(
            self._connection,
            region=queue.region,
            process=process,
            streams=streams,
            limits=queue_limits(queue),
        )
        if queue.other_regions:
            self.queue.tell_other_regions()
        self.admin = JetStreamAdmin(self._connection, self._regions, streams)
        self.bus = NatsBus(self._connection)
        self._polls = NatsPolls(self._connection)
        register_connection(registry, self._connection)
        register_queue(registry, self.queue)

    def start(self) -> None:
        """Begin to connect."""
        self._connection.start()

    def is_connected(self) -> bool:
        """Whether a message can be sent now."""
        return self._connection.is_connected()

    async def wait_connected(self) -> None:
        """Return as soon as there is a connection."""
        await self._connection.wait_connected()

    async def poll_worker(
        self, version_id: str, request_id: str, envelope: bytes, timeout_s: float = POLL_RECEIPT_S
    ) -> None:
        """Send a further poll to the worker of the request; return when it is acknowledged."""
        await self._polls.poll(version_id, request_id, envelope, timeout_s)

    def worker_environment(self) -> Mapping[str, str]:
        """Return the servers' URLs, and whom to trust for them, as settings of the worker agent."""
        ca_file = self._nats.ca_file
        trusted = {"WORKER_NATS__CA_FILE": str(ca_file.absolute())} if ca_file else {}
        return {"WORKER_NATS__URLS": ",".join(self._worker_urls), **trusted}

    def worker_credentials(self) -> WorkerCredentials | None:
        """Return the issuer of workers' logins, `None` unless its files are configured.

        Raises `queueing.interface.CredentialsError`.
        """
        files = self._login_files()
        if files is None:
            return None
        # Imported here: a process that serves invocations only does not need the memory.
        from queueing.nats.accounts.credentials import NatsWorkerCredentials  # noqa: PLC0415

        return NatsWorkerCredentials(
            files, connection_options(self._nats), self._regions, self._worker_urls
        )

    def login_callout(self, check: LoginCheck) -> LoginCallout | None:
        """Return the auth callout, `None` unless ``nats.callout`` is set.

        Raises `queueing.interface.CredentialsError`.
        """
        if not self._nats.callout:
            return None
        files = self._login_files()
        if files is None:
            raise CredentialsError(
                "nats.callout needs operator_seed_file, system_credentials_file, credentials_file"
            )
        from queueing.nats.accounts.callout import NatsCallout  # noqa: PLC0415

        options = connection_options(self._nats)
        self._callout = NatsCallout(files, options, self._regions, check, self._registry)
        return self._callout

    async def listening_workers(self, version_id: str) -> Sequence[WorkerConnection]:
        """Return the connections of NVCF's workers that listen to a version's cancels."""
        if self._callout is not None:
            return await self._callout.listening_workers(version_id)
        return await listening_workers(self._connection, OWN_ACCOUNT, version_id)

    async def disconnect_worker(self, connection: WorkerConnection) -> None:
        """End a worker's connection, if there is a callout that refuses the next."""
        if self._callout is not None:
            await self._callout.disconnect(connection)

    def _login_files(self) -> "LoginFiles | None":
        nats = self._nats
        if not (nats.operator_seed_file and nats.system_credentials_file and nats.credentials_file):
            return None
        from queueing.nats.accounts.credentials import LoginFiles  # noqa: PLC0415

        return LoginFiles(
            nats.operator_seed_file, nats.system_credentials_file, nats.credentials_file
        )

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()


def connection_options(nats: GatewayNatsSettings) -> ConnectionOptions:
    """Return the options of a gateway process's connection."""
    tls = ssl.create_default_context(cafile=nats.ca_file) if nats.ca_file else None
    return ConnectionOptions(
        servers=nats.urls,
        name="gateway-data",
        # Clients wait to be told what a broker that restarted has lost.
        reconnect_max_s=_RECONNECT_MAX_S,
        login=Login(
            credentials_file=nats.credentials_file,
            token=nats.token.get_secret_value() if nats.token else "",
            user=nats.user,
            password=nats.password.get_secret_value() if nats.password else "",
        ),
        tls=tls,
    )


def stream_settings(queue: QueueSettings, region_tag: str = "") -> StreamSettings:
    """Return the configuration of new streams and consumers."""
    return StreamSettings(
        region_tag=region_tag,
        # A work queue's stream holds what is leased too.
        max_messages=queue.max_messages + _MAX_LEASED,
        max_ack_pending=_MAX_LEASED,
        replicas=queue.replicas,
        ack_wait_s=queue.lease_s,
        max_deliver=_MAX_BROKER_DELIVERIES,
    )
