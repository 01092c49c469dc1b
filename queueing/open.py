"""Opens the queue's broker from settings. Only this module and `queueing.settings` name a backend.

Backends are imported when they are opened, so that a process loads only what it uses. A new backend
adds its case to each function, and its section to `queueing.settings`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from queueing.interface import EmbeddedBroker, GatewayBroker, WorkerBroker
from queueing.settings import Backend, GatewayBrokerSettings, WorkerBrokerSettings
from runtime.metrics import MetricRegistry


def broker_name(settings: GatewayBrokerSettings | WorkerBrokerSettings) -> str:
    """Return the name of the broker that ``settings`` choose, for people."""
    return {"nats": "NATS", "redis": "Redis"}[settings.queue.backend]


def open_gateway_broker(
    settings: GatewayBrokerSettings,
    process: int,
    registry: MetricRegistry,
    worker_urls: tuple[str, ...],
) -> GatewayBroker:
    """Return a gateway process's access to the broker, not started, with its metrics registered.

    ``process`` is the number in the request ids of this process, ``worker_urls`` are the broker's
    addresses for workers, empty if they are those in ``settings``. Call it in a running loop.
    """
    if settings.queue.backend == "redis":
        from queueing.redis.gateway import RedisGatewayBroker  # noqa: PLC0415

        return RedisGatewayBroker(settings.redis, settings.queue, registry, process, worker_urls)
    from queueing.nats.gateway import NatsGatewayBroker  # noqa: PLC0415

    return NatsGatewayBroker(settings.nats, settings.queue, registry, process, worker_urls)


def open_worker_broker(
    settings: WorkerBrokerSettings,
    version_id: str,
    instance_id: str,
    registry: MetricRegistry,
    login: Callable[[], object | None],
) -> WorkerBroker:
    """Return a worker's access to the broker, not started, with its metrics registered.

    ``login`` returns the login that the platform gave last, from `read_worker_login`, or `None`
    for the one in ``settings``. Call it in a running loop.
    """
    if settings.queue.backend == "redis":
        from queueing.redis.worker import RedisWorkerBroker  # noqa: PLC0415

        return RedisWorkerBroker(settings.redis, version_id, instance_id, registry, login)
    from queueing.nats.worker import NatsWorkerBroker  # noqa: PLC0415

    return NatsWorkerBroker(settings.nats, version_id, instance_id, registry, login)


def read_worker_login(response: Mapping[str, object]) -> object | None:
    """Return the login for the broker in a response to a worker's connect, `None` if it has none.

    It is opaque: only `open_worker_broker` uses it. Raises KeyError, TypeError or ValueError for
    a login that cannot be used.
    """
    if "redis" in response:
        from queueing.redis import accounts  # noqa: PLC0415

        return accounts.read_login(response)
    from queueing.nats.accounts import document  # noqa: PLC0415

    return document.read_login(response)


def callout_login(worker_token: str) -> object:
    """Return a login, as from `read_worker_login`, with a token that NVCF's auth callout checks."""
    from queueing.nats.worker import CalloutLogin  # noqa: PLC0415

    return CalloutLogin(worker_token)


def nats_callout_config(operator_seed: str) -> str:
    """Return the line of nats-server's configuration that ``nats.callout`` needs.

    Raises ValueError when ``operator_seed`` is not an operator's seed.
    """
    from queueing.nats.accounts.callout_documents import CalloutAccount  # noqa: PLC0415

    return CalloutAccount(operator_seed).server_config()


def embedded_broker(folder: Path, host: str, port: int, backend: Backend) -> EmbeddedBroker:
    """Return a broker to run as a child process, with its files in ``folder``.

    With ``port`` 0 it gets a free one. Raises `queueing.interface.EmbeddedBrokerError` and OSError.
    """
    if backend == "redis":
        from queueing.redis import embedded as redis  # noqa: PLC0415

        return redis.embedded_broker(folder, host, port)
    from queueing.nats import embedded as nats  # noqa: PLC0415

    return nats.embedded_broker(folder, host, port)
