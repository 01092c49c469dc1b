"""One reconciler with its local process backend, in this process or in a separate one.

``python -m tests.support.provisioner URL FOLDER`` runs one until it is stopped or killed; its
instances go on.
"""

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.app.provisioning import Provisioning
from gateway.domain.model import Change, Instance, VersionDetails
from gateway.provision.executor import LaunchCredentials
from gateway.provision.queues import Queues
from gateway.settings import ClusterSettings, ProvisionSettings
from gateway.store.names import CONTROL
from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.nats.kv import NatsStore
from gateway.store.options import NatsOptions
from gateway.store.records import Store
from gateway.store.watcher import Watcher
from queueing.nats.connection import NatsConnection
from queueing.nats.login import ConnectionOptions
from runtime import lifecycle
from runtime.lifecycle import Lifecycle
from tests.support.queues import broker_on
from tests.support.waiting import PATIENCE_S, until

REGION = "local"
SERVER = "process://{python} -m tests.support.tiny_server --port {port}"
TEMPLATES = {
    "server": SERVER,
    "crash": f"{SERVER} --exit 7",
    "stubborn": f"{SERVER} --stubborn --child",
    "missing": "process:///nowhere/to/be/found",
}
"""Server command by container image."""


CLUSTER = ClusterSettings(name="local", images=TEMPLATES)
PROVISION: dict[str, Any] = {
    "worker_command": f"{sys.executable} -m tests.support.stand_in_agent",
    "restart_first_s": 0.2,
    "restart_most_s": 0.8,
    "max_failed_starts": 3,
    "unresponsive_s": 30.0,
    "idle_s": 1.0,
    "stop_grace_s": 5.0,
    "at_stop": "end",
}


class Picture:
    """Passes the store's changes to listeners; tests wait here for what the changes lead to."""

    def __init__(self) -> None:
        self.records: dict[type, dict[str, object]] = {}
        self.listeners: list[Callable[[Change], None]] = []

    def apply(self, change: Change) -> None:
        for listener in self.listeners:
            listener(change)

    async def until(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Wait until ``condition`` is true.

        It is polled: processes and the reconciler, on which it may depend, report no changes.
        """
        await until(condition, timeout_s=timeout_s)


class Provisioner:
    """One candidate for leadership with its connections, store, queues and backend."""

    def __init__(
        self,
        nats_url: str,
        folder: Path,
        store_of: Callable[[NatsStoreConnection], Store] = NatsStore,
        **settings: Any,
    ) -> None:
        """``store_of`` makes the store of the reconciler; ``settings`` differ from `PROVISION`."""
        self.url = nats_url
        self.folder = folder
        self.connection = NatsStoreConnection(NatsOptions(urls=(nats_url,), name="provisioner"))
        self.store = NatsStore(self.connection)
        self.data = NatsConnection(ConnectionOptions(servers=(nats_url,)))
        self.broker = broker_on(self.data, REGION)
        self.queues = Queues(*self.broker)
        self.picture = Picture()
        self.watcher = Watcher(self.store, self.picture, CONTROL)
        self.provisioning = Provisioning(
            store_of(self.connection),
            self.broker,
            ProvisionSettings(folder=folder, **{**PROVISION, **settings}),
            [CLUSTER],
            LaunchCredentials(self._secrets),
            self._worker_environment,
        )
        self.reconciler = self.provisioning.reconciler
        self.backend = self.provisioning.backend
        self.picture.listeners.append(self.provisioning.apply)

    async def connect(self) -> None:
        await self.connection.open(PATIENCE_S)
        await self.store.prepare()

    async def start(self) -> None:
        self.data.start()
        self.watcher.start()
        await self.watcher.loaded.wait()
        await self.data.wait_connected()
        await self.provisioning.start()

    async def stop(self) -> None:
        await self.provisioning.stop()
        await self.watcher.stop()
        await self.data.close()
        await self.connection.close()

    async def _secrets(self, details: VersionDetails) -> Mapping[str, str]:
        return dict.fromkeys(details.secret_names, "hush-hush")

    async def _worker_environment(self, instance: Instance) -> Mapping[str, str]:
        return {"WORKER_NATS__URLS": self.url}


@asynccontextmanager
async def provisioning(
    nats_url: str,
    folder: Path,
    store_of: Callable[[NatsStoreConnection], Store] = NatsStore,
    **settings: Any,
) -> AsyncIterator[Provisioner]:
    """Run a provisioner in this process while the block runs."""
    candidate = Provisioner(nats_url, folder, store_of, **settings)
    await candidate.connect()
    await candidate.start()
    try:
        yield candidate
    finally:
        await candidate.stop()


async def _main(life: Lifecycle) -> int:
    async with provisioning(sys.argv[1], Path(sys.argv[2]), at_stop="keep"):
        await life.stopping.wait()
    return 0


if __name__ == "__main__":
    sys.exit(lifecycle.run(_main))
