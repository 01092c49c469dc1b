"""What a gateway tells its workers of Redis."""

from queueing.redis.gateway import RedisGatewayBroker
from queueing.redis.settings import GatewayRedisSettings
from queueing.settings import QueueSettings
from runtime.metrics import MetricRegistry


def environment(redis: GatewayRedisSettings, *worker_urls: str) -> dict[str, str]:
    broker = RedisGatewayBroker(redis, QueueSettings(), MetricRegistry(), 1, worker_urls)
    return dict(broker.worker_environment())


async def test_workers_get_the_servers_without_the_login_of_the_gateway() -> None:
    redis = GatewayRedisSettings(
        urls=("rediss://gateway:s%40fe@a:7000", "redis://:safe@[::1]"), sentinel_master="queue"
    )
    assert environment(redis) == {
        "WORKER_QUEUE__BACKEND": "redis",
        "WORKER_REDIS__URLS": "rediss://a:7000,redis://[::1]",
        "WORKER_REDIS__SENTINEL_MASTER": "queue",
    }


async def test_urls_for_workers_are_theirs_as_they_are() -> None:
    redis = GatewayRedisSettings(urls=("redis://:safe@a",))
    assert environment(redis, "redis://worker:w@b")["WORKER_REDIS__URLS"] == "redis://worker:w@b"
