"""What the gateway says about the settings of real servers."""

import logging

import pytest

from queueing.redis.gateway import RedisGatewayBroker
from queueing.redis.settings import GatewayRedisSettings
from queueing.settings import QueueSettings
from runtime.metrics import MetricRegistry
from tests.support.redis_server import KINDS, RedisServer, running_redis_server
from tests.support.redis_topologies import SentinelSet
from tests.support.waiting import until

EVENT = "redis.unsafe_setting"


async def told(caplog: pytest.LogCaptureFixture, server: RedisServer, count: int) -> list[str]:
    """Let a gateway connect to a server, twice, and return the settings that it warns of."""
    caplog.set_level(logging.WARNING)
    redis = GatewayRedisSettings(urls=(server.url,))
    broker = RedisGatewayBroker(redis, QueueSettings(), MetricRegistry(), 1, ())
    broker.start()
    try:
        await broker.wait_connected()
        await until(lambda: len(lines(caplog)) >= count)
        await server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: not broker.is_connected())
        await broker.wait_connected()
        await broker.admin.version_ids()
    finally:
        await broker.close()
    return lines(caplog)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return sorted(
        record.fields["setting"]  # type: ignore[attr-defined]
        for record in caplog.records
        if record.getMessage() == EVENT
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_unsafe_settings_are_told_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    unsafe = ("--maxmemory-policy", "allkeys-lru", "--client-output-buffer-limit", "pubsub 1mb 0 0")
    async with running_redis_server(kind, unsafe) as server:
        assert await told(caplog, server, 3) == [
            "appendonly",
            "client-output-buffer-limit",
            "maxmemory-policy",
        ]


async def test_the_default_settings_with_a_file_are_safe(caplog: pytest.LogCaptureFixture) -> None:
    async with running_redis_server("valkey", aof=True) as server:
        assert await told(caplog, server, 0) == []


async def test_a_server_that_hides_its_settings_is_not_judged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limited = ("user default off", "user gateway on >secret ~* &* +@all -config")
    async with running_redis_server("valkey", acl=limited, login=("gateway", "secret")) as server:
        assert await told(caplog, server, 0) == []


async def test_a_master_with_replicas_has_to_wait_for_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair = SentinelSet(args=("--appendonly", "yes"))
    try:
        await pair.start()
        # A replica that copies its data is none for a moment.
        await until(
            lambda: pair.master.run("ROLE"),
            lambda found: len(found[2]) == 1,
            what="a replica",
        )
        assert await told(caplog, pair.master, 1) == ["min-replicas-to-write"]
    finally:
        await pair.close()
