"""What a worker whose connection was cut off does with what arrives afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from queueing.redis.admin import RedisAdmin
from queueing.redis.connection import RedisConnection
from queueing.redis.consumer import PushConsumer
from queueing.redis.link import RedisOptions
from queueing.redis.scripts import WORKER
from queueing.servers import Server
from runtime.ids import new_uuid
from runtime.tasks import spawn
from tests.integration.queueing.redis.harness import GatewayQueue, gateway, options, worker
from tests.support.queue_harness import REGION, Client, Worker, new_request
from tests.support.redis_server import RedisServer, redis_server
from tests.support.tcp_relay import TcpRelay, tcp_relay
from tests.support.waiting import PATIENCE_S, until

__all__ = ["redis_server"]

LONG = bytes(20_000)
"""An envelope that is too long for a message: the worker fetches it."""


class CutWorker(NamedTuple):
    """A worker behind a relay."""

    work: Worker
    consumer: PushConsumer
    relay: TcpRelay

    async def close(self) -> None:
        self.relay.release()
        async with asyncio.timeout(PATIENCE_S):
            await self.consumer.close()


@asynccontextmanager
async def cut_worker(server: RedisServer, version_id: str) -> AsyncIterator[CutWorker]:
    async with tcp_relay(server.port) as relay:
        connection = RedisConnection(
            RedisOptions((Server("127.0.0.1", relay.port),), scripts=WORKER)
        )
        connection.start()
        work = Worker()
        consumer = PushConsumer(
            connection,
            region=REGION,
            version_id=version_id,
            on_lease=work.leased,
            on_cancel=work.cancel,
        )
        consumer.start()
        try:
            yield CutWorker(work, consumer, relay)
        finally:
            await connection.close()


@asynccontextmanager
async def at_work(server: RedisServer) -> AsyncIterator[tuple[GatewayQueue, RedisAdmin]]:
    """Run a gateway process's side, with leases of a second."""
    async with gateway(options(server.url), lease_s=1.0) as queue:
        yield queue, RedisAdmin(queue.connection, REGION, 1.0)


async def test_a_round_trip_that_takes_long_is_awaited(redis_server: RedisServer) -> None:
    version_id = new_uuid()
    async with at_work(redis_server) as (_, admin), cut_worker(redis_server, version_id) as cut:
        await admin.ensure(version_id)
        await until(cut.consumer.is_bound)
        cut.relay.hold()
        reading = spawn(cut.consumer.read_all(), "read-all")
        await until(lambda: len(cut.relay.held) >= 2)
        assert not reading.done()
        cut.relay.release()
        async with asyncio.timeout(PATIENCE_S):
            await reading
        await cut.close()


async def test_a_long_request_whose_lease_is_over_is_not_removed(
    redis_server: RedisServer,
) -> None:
    version_id, request_id = new_uuid(), new_request()
    async with at_work(redis_server) as (queue, admin), cut_worker(redis_server, version_id) as cut:
        await admin.ensure(version_id)
        cut.consumer.want(1)
        await until(lambda: redis_server.run("LLEN", f"rq:{{{REGION}.{version_id}}}:i"))
        cut.relay.hold()
        queue.publish(version_id, request_id, LONG, Client(), b"")
        await until(lambda: admin.load(version_id), lambda load: load.leased == 1)
        await until(lambda: redis_server.run("ZCARD", f"rq:{{{REGION}.{version_id}}}:r"))
        async with worker(options(redis_server.url), version_id, slots=0) as other:
            # The message arrives while the worker closes.
            await cut.close()
            other.pull.want(1)
            (lease,) = await other.has(1)
            assert lease.deliveries > 1
