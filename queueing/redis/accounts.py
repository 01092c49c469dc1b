"""Logins of workers at Redis."""

from collections.abc import Mapping
from typing import NamedTuple

from queueing.interface import WorkerCredentials
from queueing.redis.settings import GatewayRedisSettings


class RedisLogin(NamedTuple):
    """A worker's login, and where to use it."""

    urls: tuple[str, ...]
    sentinel_master: str
    user: str
    password: str


def read_login(response: Mapping[str, object]) -> RedisLogin | None:
    """Return the login in a response to a worker's connect, `None` if it has none."""
    document = response.get("redis")
    if document is None:
        return None
    if not isinstance(document, dict):
        raise TypeError("redis is not an object")
    return RedisLogin(
        tuple(document["urls"]), document["sentinelMaster"], document["user"], document["password"]
    )


def worker_credentials(
    _redis: GatewayRedisSettings, _region: str, _worker_urls: tuple[str, ...]
) -> WorkerCredentials | None:
    """Return the issuer of workers' logins."""
    return None
