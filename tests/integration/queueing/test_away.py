"""A worker serves its own region first, and the others when its own queue is empty."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from queueing.nats.accounts.jwt import account_of
from queueing.nats.accounts.users import WORKER_API, WorkerUsers
from queueing.nats.admin import JetStreamAdmin
from queueing.nats.away import AwayConsumer, RegionalConsumer
from queueing.nats.consumer import PullConsumer, PullOptions
from queueing.nats.jetstream import StreamSettings
from queueing.nats.login import ConnectionOptions, read_credentials
from queueing.nats.queue import TELL_WAITING_S
from queueing.own_requests import TICK_S
from tests.support.nats_logins import GuardedNats, guarded_nats
from tests.support.nats_server import NatsServer, nats_server
from tests.support.queue_harness import (
    OPTIONS,
    REGION,
    GatewayQueue,
    Worker,
    connected,
    gateway,
    messages_in,
    new_version,
    publish_many,
    worker,
)
from tests.support.waiting import until, until_unchanged

__all__ = ["guarded_nats", "nats_server"]

ELSEWHERE = "elsewhere"
LONG = StreamSettings(ack_wait_s=30.0)
QUIET_S = 2 * (TELL_WAITING_S + TICK_S)
"""Within this time workers elsewhere would be told, and would pull."""


@asynccontextmanager
async def away_worker(
    url: str,
    version_id: str,
    slots: int,
    options: ConnectionOptions = OPTIONS,
    pulls: PullOptions | None = None,
) -> AsyncIterator[Worker]:
    """Run a worker of the region `ELSEWHERE`, bound to its own queue and that of `REGION`."""
    async with connected(url, options) as connection:
        work = Worker()
        home = PullConsumer(
            connection,
            region=ELSEWHERE,
            version_id=version_id,
            on_lease=lambda lease: work.write("home", lease.request_id),
            on_cancel=work.cancel,
            options=pulls,
        )
        away = AwayConsumer(
            home,
            connection,
            region=REGION,
            version_id=version_id,
            on_lease=work.leased,
            options=pulls or PullOptions(),
        )
        work.pull = RegionalConsumer(home, [away])
        work.pull.start()
        work.pull.want(slots)
        try:
            await until(lambda: away.is_bound() and work.pull.is_line_empty())
            yield work
        finally:
            await work.pull.close()


@asynccontextmanager
async def telling_gateway(
    url: str, version_id: str, options: ConnectionOptions = OPTIONS
) -> AsyncIterator[GatewayQueue]:
    """Run a gateway of `REGION` that has other regions, with the version's queues in both."""
    async with gateway(url, streams=LONG, options=options) as queue:
        queue.tell_other_regions()
        await JetStreamAdmin(queue.connection, [REGION, ELSEWHERE], LONG).ensure(version_id)
        yield queue


async def test_what_waits_is_served_elsewhere_as_far_as_there_are_slots(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    async with (
        telling_gateway(nats_server.url, version) as queue,
        away_worker(nats_server.url, version, slots=2) as away,
    ):
        requests = await publish_many(queue, version, 5)
        leases = await away.has(2)
        await until_unchanged(lambda: len(away.leases), for_s=QUIET_S)
        assert [lease.request_id for lease in leases] == requests[:2]
        # None was given back for want of a slot: each is delivered once.
        for lease in list(leases):
            lease.ack()
        away.pull.want(2)
        await away.has(4)
        assert [lease.deliveries for lease in away.leases] == [1, 1, 1, 1]
        assert [lease.request_id for lease in away.leases] == requests[:4]


async def test_workers_of_the_region_get_what_they_are_free_for(nats_server: NatsServer) -> None:
    version = new_version()
    async with (
        telling_gateway(nats_server.url, version) as queue,
        worker(nats_server.url, version, slots=4, region=REGION) as own,
        away_worker(nats_server.url, version, slots=4) as away,
    ):
        await publish_many(queue, version, 4)
        await own.has(4)
        late = await publish_many(queue, version, 1)
        await away.has(1)
        assert away.leases[0].request_id == late[0]
        assert len(own.leases) == 4


async def test_a_worker_with_a_line_of_its_own_serves_that(nats_server: NatsServer) -> None:
    version = new_version()
    async with (
        telling_gateway(nats_server.url, version) as queue,
        connected(nats_server.url) as connection,
        away_worker(nats_server.url, version, slots=1) as away,
    ):
        for number in range(3):
            await connection.request(f"rq.{ELSEWHERE}.{version}.{number}".encode(), b"envelope")
        await away.until(lambda: ("home", "0") in away.entries)
        await publish_many(queue, version, 2)
        for number in (1, 2):
            away.pull.want(1)
            await away.until(lambda number=number: ("home", str(number)) in away.entries)  # type: ignore[misc]
        assert away.leases == []
        away.pull.want(2)
        await away.has(2)


async def test_a_cancelled_request_is_not_begun_elsewhere(nats_server: NatsServer) -> None:
    version = new_version()
    async with (
        telling_gateway(nats_server.url, version) as queue,
        away_worker(nats_server.url, version, slots=2) as away,
    ):
        away.pull.want(0)
        first, second = await publish_many(queue, version, 2)
        queue.withdraw(version, first)
        await away.until(lambda: away.cancelled == [first])
        away.pull.want(2)
        (lease,) = await away.has(1)
        assert lease.request_id == second


async def test_the_queues_of_all_regions_are_made_counted_and_removed_together(
    nats_server: NatsServer,
) -> None:
    version = new_version()
    async with telling_gateway(nats_server.url, version) as queue:
        admin = JetStreamAdmin(queue.connection, [ELSEWHERE, REGION], LONG)
        await publish_many(queue, version, 2)
        await queue.connection.request(f"rq.{ELSEWHERE}.{version}.0".encode(), b"envelope")
        await until(lambda: admin.load(version), lambda load: (load.waiting, load.leased) == (3, 0))
        assert await admin.version_ids() == [version]
        await admin.purge(version)
        for region in (REGION, ELSEWHERE):
            assert await messages_in(queue.connection, version, region) == 0
        await admin.remove(version)
        assert await admin.version_ids() == []


async def test_a_workers_login_reaches_its_versions_queues_in_all_regions(
    guarded_nats: GuardedNats,
) -> None:
    nats, version = guarded_nats, new_version()
    jwt, _ = read_credentials(nats.logins.gateway_credentials)
    seed = nats.logins.operator_seed.read_text()
    nats.users = WorkerUsers(seed, account_of(jwt), [ELSEWHERE, REGION])
    same = WorkerUsers(seed, account_of(jwt), [REGION, ELSEWHERE])
    assert nats.users.account(version, "d1") == same.account(version, "d1")
    options = await nats.worker_options(version)
    pulls = PullOptions(api=WORKER_API, has_scoped_polls=True)
    async with (
        telling_gateway(nats.url, version, nats.gateway_options) as queue,
        away_worker(nats.url, version, 1, options, pulls) as away,
    ):
        await publish_many(queue, version, 1)
        (lease,) = await away.has(1)
        lease.ack()
        await until(lambda: messages_in(queue.connection, version), lambda left: left == 0)


@pytest.mark.parametrize("region", [REGION, ELSEWHERE])
async def test_a_queue_is_placed_on_servers_of_its_region(
    nats_server: NatsServer, region: str
) -> None:
    config = StreamSettings(region_tag="region").stream(region, new_version())
    assert config["placement"] == {"tags": [f"region:{region}"]}
    assert "placement" not in StreamSettings().stream(region, new_version())
