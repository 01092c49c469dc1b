"""A worker's access to Redis: one connection and the consumer of its queue."""

from collections.abc import Callable
from dataclasses import replace

from queueing.interface import Lease, LoginListener, OtherRegions
from queueing.redis.accounts import RedisLogin
from queueing.redis.connection import RedisConnection
from queueing.redis.consumer import PushConsumer
from queueing.redis.link import Link
from queueing.redis.metrics import register_connection
from queueing.redis.options import redis_options
from queueing.redis.scripts import WORKER
from queueing.redis.settings import WorkerRedisSettings
from queueing.worker_metrics import register_consumer
from runtime.metrics import MetricRegistry


class RedisWorkerBroker:
    """A `queueing.interface.WorkerBroker`."""

    def __init__(
        self,
        redis: WorkerRedisSettings,
        version_id: str,
        instance_id: str,
        registry: MetricRegistry,
        login: Callable[[], object | None],
    ) -> None:
        """``login`` returns the last `RedisLogin` of the platform, `None` to use ``redis``.

        The first result decides between the two; later ones are used for each new connection.
        """
        self._version_id = version_id
        self._registry = registry
        name = f"worker_{version_id}_{instance_id}"
        options = redis_options(redis, name, WORKER)
        first = login()
        if isinstance(first, RedisLogin):
            options = replace(
                # Its user may not load scripts: the gateways do.
                redis_options(redis, name, (), first.urls),
                sentinel_master=first.sentinel_master,
                login=lambda: self._credentials(login()),
            )
        self._on_refused: Callable[[], None] = lambda: None
        self._connection = RedisConnection(options)
        register_connection(registry, self._connection, "worker_redis")

    def start(self) -> None:
        """Begin to connect."""
        self._connection.start()

    def is_connected(self) -> bool:
        """Whether a message can be sent now."""
        return self._connection.is_connected()

    def add_listener(self, listener: LoginListener) -> None:
        """Call ``listener`` for all changes of the connection from now on."""
        self._on_refused = listener.refused
        self._connection.add_listener(_Listener(self._connection, listener))

    def consumer(
        self,
        region: str,
        on_lease: Callable[[Lease], None],
        on_cancel: Callable[[str], None],
        others: OtherRegions | None = None,
    ) -> PushConsumer:
        """Return the consumer of the worker's queue in ``region``; there are no ``others``."""
        assert others is None, "the settings refuse other regions"
        consumer = PushConsumer(
            self._connection,
            region=region,
            version_id=self._version_id,
            on_lease=on_lease,
            on_cancel=on_cancel,
        )
        register_consumer(self._registry, region, consumer.is_bound)
        return consumer

    async def renew(self) -> bool:
        """Keep the connection: a server ends none of a user that has got a new password."""
        return self._connection.is_connected()

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()

    def _credentials(self, login: object) -> tuple[str, str]:
        """Return user and password for the next attempt to connect."""
        if self._connection.is_refused:
            self._on_refused()
        return (login.user, login.password) if isinstance(login, RedisLogin) else ("", "")


class _Listener:
    """Tells a `LoginListener` of the first link to be up, and of the last to be down."""

    def __init__(self, connection: RedisConnection, listener: LoginListener) -> None:
        self._connection = connection
        self._listener = listener
        self._is_up = False

    def link_up(self, _link: Link) -> None:
        if not self._is_up:
            self._is_up = True
            self._listener.connected()

    def link_down(self, _link: Link) -> None:
        if self._is_up and not self._connection.is_connected():
            self._is_up = False
            self._listener.disconnected()
