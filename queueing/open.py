"""Opens the queue's broker from settings: the only module that names a backend.

Backends are imported when they are opened, so that a process loads only what it uses. A new backend
adds its section to the settings protocols below and its case to each function.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from queueing.interface import EmbeddedBroker, GatewayBroker, WorkerBroker
from queueing.nats.settings import GatewayNatsSettings, WorkerNatsSettings
from queueing.settings import QueueSettings
from runtime.metrics import Registry


class ControlSettings(Protocol):
    """The part of the gateway's ``[control]`` that concerns the broker."""

    @property
    def nats_urls(self) -> tuple[str, ...]: ...


class GatewaySettings(Protocol):
    """The part of the gateway's settings that concerns the broker."""

    @property
    def nats(self) -> GatewayNatsSettings: ...

    @property
    def queue(self) -> QueueSettings: ...

    @property
    def control(self) -> ControlSettings: ...


class WorkerSettings(Protocol):
    """The part of the worker agent's settings that concerns the broker."""

    @property
    def nats(self) -> WorkerNatsSettings: ...


def broker_name(settings: GatewaySettings | WorkerSettings) -> str:  # noqa: ARG001
    """Return the name of the broker that ``settings`` choose, for people."""
    return "NATS"


def open_gateway_broker(
    settings: GatewaySettings, process: int, registry: Registry
) -> GatewayBroker:
    """Return a gateway process's access to the broker, not started, with its metrics registered.

    ``process`` is the number in the request ids of this process. Call it in a running loop.
    """
    from queueing.nats.gateway import NatsGatewayBroker  # noqa: PLC0415

    return NatsGatewayBroker(
        settings.nats, settings.queue, registry, process, settings.control.nats_urls
    )


def open_worker_broker(
    settings: WorkerSettings,
    version_id: str,
    instance_id: str,
    registry: Registry,
    login: Callable[[], object | None],
) -> WorkerBroker:
    """Return a worker's access to the broker, not started, with its metrics registered.

    ``login`` returns the login that the platform gave last, from `read_worker_login`, or `None`
    for the one in ``settings``. Call it in a running loop.
    """
    from queueing.nats.worker import NatsWorkerBroker  # noqa: PLC0415

    return NatsWorkerBroker(settings.nats, version_id, instance_id, registry, login)


def read_worker_login(response: Mapping[str, object]) -> object | None:
    """Return the login for the broker in a response to a worker's connect, `None` if it has none.

    It is opaque: only `open_worker_broker` uses it. Raises KeyError, TypeError or ValueError for
    a login that cannot be used.
    """
    from queueing.nats.accounts.document import read_login  # noqa: PLC0415

    return read_login(response)


def embedded_broker(folder: Path, host: str, port: int) -> EmbeddedBroker:
    """Return a broker to run as a child process, with its files in ``folder``.

    With ``port`` 0 it chooses one. Raises `queueing.interface.EmbeddedBrokerError` and OSError.
    """
    from queueing.nats import embedded  # noqa: PLC0415

    return embedded.embedded_broker(folder, host, port)
