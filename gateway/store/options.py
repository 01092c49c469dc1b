"""The options of the store's backends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """Addresses of NATS and the login; every kind of login is optional.

    ``credentials_file`` is a ``.creds`` file (JWT and seed). TLS is used with a ``tls://`` URL or
    with a ``ca_file``, the certificate of a private authority.
    """

    urls: tuple[str, ...]
    name: str = "gateway"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class RedisStoreOptions:
    """Addresses of Redis or Valkey and the login, which is optional.

    ``urls`` are ``redis://[user[:password]@]host[:port]``, or ``rediss://`` for TLS: a server, some
    nodes of a Cluster, or with ``sentinel_master``, the master's name there, the Sentinels. A login
    in a URL is for that server. ``ca_file`` is the certificate of a private authority.
    """

    urls: tuple[str, ...]
    name: str = "gateway"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_master: str = ""
    sentinel_password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None


StoreOptions = NatsOptions | RedisStoreOptions
REDIS_SCHEMES = ("redis", "rediss")


def options_at(urls: Sequence[str], name: str) -> StoreOptions:
    """Return options for the servers at ``urls``, whose scheme decides on the backend."""
    if urls[0].partition("://")[0] in REDIS_SCHEMES:
        return RedisStoreOptions(tuple(urls), name)
    return NatsOptions(tuple(urls), name)
