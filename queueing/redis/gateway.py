"""A gateway process's access to Redis: one connection for queue, administration and bus."""

from collections.abc import Mapping, Sequence

from queueing.interface import POLL_RECEIPT_S, LoginCheck, WorkerConnection, WorkerCredentials
from queueing.own_requests import queue_limits
from queueing.redis.addresses import without_login
from queueing.redis.admin import RedisAdmin
from queueing.redis.bus import RedisBus
from queueing.redis.checks import ServerChecks
from queueing.redis.connection import RedisConnection
from queueing.redis.metrics import register_connection, register_queue
from queueing.redis.options import redis_options
from queueing.redis.polls import RedisPolls
from queueing.redis.queue import RedisQueue
from queueing.redis.scripts import GATEWAY, WORKER
from queueing.redis.settings import GatewayRedisSettings
from queueing.settings import QueueSettings
from runtime.metrics import MetricRegistry


class RedisGatewayBroker:
    """A `queueing.interface.GatewayBroker`."""

    def __init__(
        self,
        redis: GatewayRedisSettings,
        queue: QueueSettings,
        registry: MetricRegistry,
        process: int,  # noqa: ARG002 - positions are the server's here
        worker_urls: tuple[str, ...],
    ) -> None:
        """``worker_urls`` are the servers' as workers reach them.

        If there are none they are ``redis.urls``, without the gateway's login.
        """
        self._redis = redis
        self._region = queue.region
        self._worker_urls = worker_urls or tuple(without_login(url) for url in redis.urls)
        # Those of workers too: their users may not load scripts.
        self._connection = RedisConnection(redis_options(redis, "gateway", GATEWAY + WORKER))
        self.queue = RedisQueue(
            self._connection,
            region=queue.region,
            lease_s=queue.lease_s,
            limits=queue_limits(queue),
        )
        self.admin = RedisAdmin(self._connection, queue.region, queue.lease_s, queue.max_deliveries)
        self.bus = RedisBus(self._connection)
        self._polls = RedisPolls(self._connection, queue.region)
        self._connection.add_listener(ServerChecks())
        register_connection(registry, self._connection, "gateway_redis")
        register_queue(registry, self.queue)

    def start(self) -> None:
        """Begin to connect."""
        self._connection.start()
        self.bus.start()

    def is_connected(self) -> bool:
        """Whether a message can be sent now."""
        return self._connection.is_connected()

    async def wait_connected(self) -> None:
        """Return as soon as there is a connection."""
        await self._connection.wait_connected()
        await self.bus.wait_ready()

    async def poll_worker(
        self, version_id: str, request_id: str, envelope: bytes, timeout_s: float = POLL_RECEIPT_S
    ) -> None:
        """Send a further poll to the worker of the request; return when its connection has it."""
        await self._polls.poll(version_id, request_id, envelope, timeout_s)

    def worker_environment(self) -> Mapping[str, str]:
        """Return the servers' URLs as settings of the worker agent."""
        environment = {
            "WORKER_QUEUE__BACKEND": "redis",
            "WORKER_REDIS__URLS": ",".join(self._worker_urls),
        }
        if self._redis.sentinel_master:
            environment["WORKER_REDIS__SENTINEL_MASTER"] = self._redis.sentinel_master
        return environment

    def worker_credentials(self) -> WorkerCredentials | None:
        """Return the issuer of workers' logins, `None` without a login of our own."""
        # Imported here: a process that serves invocations only does not need the memory.
        from queueing.redis.accounts import worker_credentials  # noqa: PLC0415

        return worker_credentials(self._connection, self._region, self._worker_urls)

    def login_callout(self, check: LoginCheck) -> None:
        """Return `None`: NVCF's workers know NATS only."""

    async def listening_workers(self, version_id: str) -> Sequence[WorkerConnection]:  # noqa: ARG002
        """Return nobody."""
        return ()

    async def disconnect_worker(self, connection: WorkerConnection) -> None:
        """Nothing: there is none."""

    async def close(self) -> None:
        """End the connection."""
        await self.bus.close()
        await self._connection.close()
