"""A request and its position are found from every gateway process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.dispatch.locator import RequestLocator
from gateway.domain.model import FunctionVersion, VersionState
from gateway.domain.queued_request import QueuedRequest
from gateway.requests.regions import Regions
from queueing.interface import QueueUnavailable
from queueing.nats.bus import NatsBus
from queueing.nats.connection import NatsConnection
from queueing.nats.login import ConnectionOptions
from tests.support.nats_server import NatsServer, nats_server
from tests.support.waiting import PATIENCE_S
from wire.ids import FunctionId, VersionId, request_id
from wire.source import Source

__all__ = ["nats_server"]

VERSION = FunctionVersion(FunctionId("f"), VersionId("v"), "owner", "n", VersionState.ACTIVE)
HERE, THERE, GONE = 1, 0xABCD, 7
URL = "https://gateway.example"
SOURCE = Source("203.0.113.9", b"https", b"gateway.example")


@dataclass
class Waiting:
    request_id: str
    account: str = "caller"
    version: FunctionVersion = VERSION
    is_direct: bool = False
    source: Source = SOURCE


class Third:
    """A queue in which everybody is third."""

    async def position(self, version_id: str, request_id: str) -> int:
        return 3


@asynccontextmanager
async def process(url: str, number: int, *live: Waiting) -> AsyncIterator[RequestLocator]:
    connection = NatsConnection(ConnectionOptions(servers=(url,)))
    connection.start()
    by_id = {waiting.request_id: waiting for waiting in live}
    requests = RequestLocator(
        by_id, Third(), NatsBus(connection), Regions(NatsBus(connection), "local", ()), number
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await connection.wait_connected()
        requests.start()
        await connection.flush()
        yield requests
    finally:
        requests.close()
        await connection.close()


async def test_a_request_is_found_in_the_process_that_gave_its_id(nats_server: NatsServer) -> None:
    one, other = (Waiting(request_id(bytes(16), number)) for number in (HERE, THERE))
    async with (
        process(nats_server.url, HERE, one) as here,
        process(nats_server.url, THERE, other) as there,
    ):
        for asked in (here, there):
            for waiting in (one, other):
                assert await asked.find(waiting.request_id) == QueuedRequest(
                    "f", "v", "caller", 3, URL
                )
            unknown = request_id(b"x" * 16, THERE)
            assert await asked.find(unknown) is None


async def test_a_call_that_a_worker_has_over_a_channel_is_at_position_0(
    nats_server: NatsServer,
) -> None:
    sent = Waiting(request_id(bytes(16), HERE), is_direct=True)
    async with process(nats_server.url, HERE, sent) as here:
        async with process(nats_server.url, THERE) as there:
            for asked in (here, there):
                assert await asked.find(sent.request_id) == QueuedRequest(
                    "f", "v", "caller", 0, URL
                )
        await nats_server.kill()
        assert await here.find(sent.request_id) == QueuedRequest("f", "v", "caller", 0, URL)


async def test_a_request_of_a_process_that_is_gone_is_not_found(nats_server: NatsServer) -> None:
    async with process(nats_server.url, HERE) as here:
        assert await here.find(request_id(bytes(16), GONE)) is None


async def test_without_a_broker_only_others_requests_are_out_of_reach(
    nats_server: NatsServer,
) -> None:
    own = Waiting(request_id(bytes(16), HERE))
    async with process(nats_server.url, HERE, own) as here:
        await nats_server.kill()
        assert await here.find(own.request_id) is not None
        with pytest.raises(QueueUnavailable):
            await here.find(request_id(bytes(16), THERE))
