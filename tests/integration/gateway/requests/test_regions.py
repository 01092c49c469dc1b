"""A process of any region is found, and a region that is away is no process that is gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from gateway.requests.regions import Regions
from queueing.interface import NoResponder, QueueUnavailable
from queueing.nats.bus import NatsBus
from tests.support.nats_server import NatsServer, nats_server
from tests.support.queue_harness import connected
from wire.subjects import holder_subject

__all__ = ["nats_server"]

NAMES = ("eu", "us", "ap")


@asynccontextmanager
async def region(nats: NatsServer, own: str, *processes: int) -> AsyncIterator[Regions]:
    """Run processes of one region, which respond with their region's name."""
    async with connected(nats.url) as connection:
        bus = NatsBus(connection)
        regions = Regions(bus, own, [name for name in NAMES if name != own])
        regions.start()
        for number in processes:
            bus.subscribe(
                holder_subject(own, number).encode(),
                lambda _subject, reply, _payload: bus.publish(reply, own.encode()) and None,
            )
        await connection.flush()
        yield regions
        regions.close()
        await connection.flush()


async def test_a_process_is_found_in_its_region_or_known_to_be_gone(
    nats_server: NatsServer,
) -> None:
    async with (
        region(nats_server, "eu", 1) as eu,
        region(nats_server, "us", 2),
        region(nats_server, "ap", 3, 1),
    ):
        found = [await eu.ask(partial(holder_subject, process=one), b"?") for one in (1, 2, 3)]
        assert found == [b"eu", b"us", b"ap"]
        with pytest.raises(NoResponder):
            await eu.ask(partial(holder_subject, process=4), b"?")


async def test_while_a_region_is_away_nobody_knows_whether_a_process_is_gone(
    nats_server: NatsServer,
) -> None:
    async with region(nats_server, "eu", 1) as eu, region(nats_server, "us", 2):
        assert await eu.ask(partial(holder_subject, process=2), b"?") == b"us"
        with pytest.raises(QueueUnavailable, match="region ap is away"):
            await eu.ask(partial(holder_subject, process=4), b"?")
        async with region(nats_server, "ap", 3):
            with pytest.raises(NoResponder):
                await eu.ask(partial(holder_subject, process=4), b"?")


async def test_a_region_alone_asks_nobody_else(nats_server: NatsServer) -> None:
    async with connected(nats_server.url) as connection:
        regions = Regions(NatsBus(connection), "eu", ())
        regions.start()
        with pytest.raises(NoResponder):
            await regions.ask(partial(holder_subject, process=4), b"?")
