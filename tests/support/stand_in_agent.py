"""A stand-in for the worker agent, as a separate process, for tests of the reconciler.

It probes its inference server, pulls requests from its version's queue and acknowledges each after
the number of seconds in its payload, or, if the payload is `UNTIL_FINISH`, after a message to
`finish_subject`. It writes its part of the instance's record into the store, as the API does for an
agent's heartbeats. After SIGTERM it finishes its requests.
"""

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from gateway.domain.model import Instance, InstanceKey
from gateway.errors import GatewayError
from gateway.store.nats.connection import NatsStoreConnection
from gateway.store.nats.kv import NatsStore
from gateway.store.options import NatsOptions
from gateway.store.records import Store
from runtime.tasks import spawn
from wire.subjects import consumer_name, stream_name

BEAT_S = 0.25
SLOTS = 4
LEASE_S = 3
UNTIL_FINISH = b"until finish"


def finish_subject(version_id: str) -> str:
    """Return the subject of the message after which `UNTIL_FINISH` requests are acknowledged."""
    return f"test.finish.{version_id}"


class StandInAgent:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._version_id = os.environ["WORKER_FUNCTION__VERSION_ID"]
        self._name = InstanceKey(self._version_id, os.environ["WORKER_INSTANCE__ID"])
        self._port = int(os.environ["WORKER_INFERENCE__PORT"])
        self._running: set[asyncio.Task[None]] = set()
        self._finish = asyncio.Event()
        self.is_stopping = asyncio.Event()

    async def run(self) -> None:
        pulling = spawn(self._pull(), "pull")
        while not self.is_stopping.is_set():
            await self._beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self.is_stopping.wait()
        pulling.cancel()
        while self._running:
            await self._beat()
            await asyncio.wait(self._running, timeout=BEAT_S)
        await self._beat(is_connected=False)

    async def _beat(self, *, is_connected: bool = True) -> None:
        is_healthy = await self._probe()
        with suppress(GatewayError):
            found = await self._store.get(self._name)
            if found is None or not isinstance(found[0], Instance):
                return
            instance = replace(
                found[0],
                is_connected=is_connected,
                is_healthy=is_healthy,
                slots=SLOTS,
                busy=len(self._running),
                lease_until=int(time.time()) + LEASE_S,
            )
            await self._store.put(instance, found[1])

    async def _probe(self) -> bool:
        try:
            async with asyncio.timeout(1.0):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _pull(self) -> None:
        stream = stream_name("local", self._version_id)
        client = await self._store.connection.client()
        await client.subscribe(finish_subject(self._version_id), cb=self._on_finish)
        while True:
            try:
                client = await self._store.connection.client()
                jetstream = client.jetstream()
                await jetstream.consumer_info(stream, consumer_name(stream))
                subscription = await jetstream.pull_subscribe_bind(consumer_name(stream), stream)
                await self._fetch(subscription)
            except nats.errors.Error:
                await asyncio.sleep(0.1)

    async def _fetch(self, subscription: JetStreamContext.PullSubscription) -> None:
        """Take requests from one subscription until there is an error.

        The subscription is kept when a pull times out: the broker may have delivered a request just
        before, which the next fetch returns and which would otherwise be leased to nobody.
        """
        while True:
            if len(self._running) >= SLOTS:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            # Without a connection, pulls would be buffered and all be sent on the next one.
            await self._store.connection.client()
            with suppress(TimeoutError):
                for message in await subscription.fetch(1, timeout=0.5):
                    task = spawn(self._work(message), "work")
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)

    async def _work(self, message: Msg) -> None:
        if message.data == UNTIL_FINISH:
            await self._finish.wait()
        else:
            await asyncio.sleep(float(message.data or b"0"))
        await message.ack_sync()

    async def _on_finish(self, _message: Msg) -> None:
        self._finish.set()


async def main() -> None:
    connection = NatsStoreConnection(
        NatsOptions(urls=(os.environ["WORKER_NATS__URLS"],), name="agent")
    )
    await connection.open(10.0)
    agent = StandInAgent(NatsStore(connection))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.is_stopping.set)
    await agent.run()
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
