"""The sections ``[redis]`` of both programs' settings."""

from typing import Annotated

from queueing.redis.addresses import AddressError, parse_server
from runtime.setting_rules import After, ExistingFile, NotEmpty, SecretText
from runtime.settings import Section


def _server_url(url: str) -> str:
    try:
        parse_server(url)
    except AddressError as error:
        # The URL is not in the message: it may contain a password.
        raise ValueError(str(error)) from None
    return url


RedisUrl = Annotated[str, After(_server_url)]


class RedisSettings(Section):
    """A connection to Redis or Valkey: to one server, to the master of Sentinels, or to a Cluster.

    ``urls`` may contain logins, each of which counts for its server.
    """

    urls: Annotated[tuple[RedisUrl, ...], NotEmpty()] = ("redis://127.0.0.1:6379",)
    """redis:// or rediss:// (TLS) URLs: one server, some nodes of a Cluster, or the Sentinels."""
    sentinel_master: str = ""
    """Name of the master at the Sentinels; empty: urls are servers, not Sentinels."""
    user: str = ""
    """User (ACL) at the servers; empty: the default user."""
    password: SecretText | None = None
    """Password of user."""
    sentinel_password: SecretText | None = None
    """Password at the Sentinels, if they have one."""
    ca_file: ExistingFile | None = None
    """CA certificates (PEM) that verify servers of rediss://; unset: those of the system."""


class GatewayRedisSettings(RedisSettings):
    """The connection to Redis or Valkey, of queue and store."""


class WorkerRedisSettings(RedisSettings):
    """The connection to Redis or Valkey that holds the queue."""
