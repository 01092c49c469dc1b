"""Logins of workers: one ACL user for the workers of each version (redis.io, "ACL").

A user may reach the keys and channels of its version's queue, by the commands that `lua/` and the
links of a worker need, and nothing else. Servers do not copy users to each other, and may forget
them at a restart: they are made at every server that can become the master, and again on every new
link.

A login is valid for some hours: passwords are made from the gateway's own one, the version and the
time, so every gateway process makes the same ones without asking the others. A user has all that
are valid now or later, and loses the old ones whenever a login is issued.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from queueing.interface import QueueUnavailable, WorkerCredentials
from queueing.redis.addresses import Server, parse_server
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import RedisError
from queueing.redis.keys import QueueKeys
from queueing.redis.link import Link, RedisOptions, open_link
from queueing.redis.options import redis_options
from queueing.redis.settings import GatewayRedisSettings
from runtime.tasks import spawn

_PERIOD_S = 21_600
_MAX_PASSWORDS = 200
_CALL_S = 3.0
_COMMANDS = (
    b"+ping +hello +auth +info +client|reply +cluster|slots +ssubscribe +sunsubscribe "
    b"+evalsha +script|load "
    b"+time +exists +spublish +hget +hset +hdel +hmget +hincrby +hkeys +zadd +zrem +zpopmin +zcard "
    b"+zrangebyscore +lpop +rpush +lrem"
).split()


class RedisLogin(NamedTuple):
    """A worker's login, and where to use it; ``sentinel_master`` is as in the settings."""

    urls: tuple[str, ...]
    sentinel_master: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"RedisLogin({self.user})"


def read_login(response: Mapping[str, object]) -> RedisLogin | None:
    """Return the login in a response to a worker's connect, `None` if it has none.

    Raises KeyError, TypeError or ValueError for one that cannot be used.
    """
    document = response.get("redis")
    if document is None:
        return None
    if not isinstance(document, dict):
        raise TypeError("redis is not an object")
    urls = tuple(str(url) for url in document["urls"])
    return RedisLogin(
        urls, str(document["sentinelMaster"]), str(document["user"]), str(document["password"])
    )


class WorkerUsers:
    """The names, passwords and rights of the users of one region's versions. Pure."""

    def __init__(self, secret: str, region: str) -> None:
        """Passwords are made from ``secret``."""
        self._secret = secret.encode()
        self._region = region

    def name(self, version_id: str) -> str:
        """Return the name of the user of a version's workers."""
        return f"worker.{self._region}.{version_id}"

    def password(self, version_id: str, expires_at: float) -> str:
        """Return the password that is valid until ``expires_at`` at least, in Unix seconds."""
        return self._password(version_id, int(expires_at) // _PERIOD_S)

    def rules(self, version_id: str, now: float, expires_at: float) -> list[bytes]:
        """Return the arguments of ACL SETUSER; the passwords are hashed."""
        first, last = int(now) // _PERIOD_S, int(expires_at) // _PERIOD_S
        periods = range(max(first, last - _MAX_PASSWORDS + 1), last + 1)
        passwords = [self._password(version_id, period).encode() for period in periods]
        key = QueueKeys.of(self._region, version_id).key
        return [
            self.name(version_id).encode(),
            b"reset",
            b"on",
            *(b"#" + hashlib.sha256(password).hexdigest().encode() for password in passwords),
            b"~%b*" % key,
            b"&%b*" % key,
            *_COMMANDS,
        ]

    def _password(self, version_id: str, period: int) -> str:
        text = f"{self.name(version_id)} {period}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()


class RedisWorkerCredentials:
    """A `queueing.interface.WorkerCredentials`, over a connection of its own."""

    def __init__(
        self,
        options: RedisOptions,
        users: WorkerUsers,
        worker_urls: tuple[str, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``worker_urls`` are the servers' as workers reach them."""
        self._options = options
        self._users = users
        self._urls = worker_urls
        self._clock = clock
        self._connection = RedisConnection(options)
        self._expires_at: dict[str, float] = {}

    def start(self) -> None:
        """Begin to connect."""
        self._connection.add_listener(self)
        self._connection.start()

    async def close(self) -> None:
        """End that connection."""
        await self._connection.close()

    async def issue(
        self,
        version_id: str,
        deployment_id: str,  # noqa: ARG002 - users are of versions
        instance_id: str,  # noqa: ARG002
        expires_at: float,
    ) -> Mapping[str, object]:
        """Return a login that is valid until ``expires_at``, in Unix seconds."""
        rules = self._users.rules(version_id, self._clock(), expires_at)
        await self._everywhere(b"ACL", b"SETUSER", *rules)
        self._expires_at[version_id] = max(expires_at, self._expires_at.get(version_id, 0.0))
        login = {
            "urls": self._urls,
            "sentinelMaster": self._options.sentinel_master,
            "user": self._users.name(version_id),
            "password": self._users.password(version_id, expires_at),
        }
        return {"redis": login}

    async def remove(self, version_ids: Sequence[str]) -> None:
        """Delete the users of versions, which ends their connections."""
        for version_id in version_ids:
            self._expires_at.pop(version_id, None)
        names = [self._users.name(version_id).encode() for version_id in version_ids]
        if names:
            await self._everywhere(b"ACL", b"DELUSER", *names)

    async def _everywhere(self, *words: bytes) -> None:
        """Send a command to all masters, and to their replicas as far as they can be reached."""
        if not self._connection.is_connected():
            raise QueueUnavailable(f"not connected: {self._connection.last_error}")
        try:
            for link in self._connection.links:
                role = await link.call(b"ROLE", timeout_s=_CALL_S)
                await self._to(link, words)
                for host, port, *_ in role[2]:
                    replica = link.server._replace(host=host.decode(), port=int(port))
                    with suppress(RedisError, OSError):
                        await self._to_replica(replica, words)
        except RedisError as error:
            raise QueueUnavailable(f"users cannot be changed: {error}") from error

    async def _to_replica(self, server: Server, words: tuple[bytes, ...]) -> None:
        link = await open_link(server, self._options)
        try:
            await self._to(link, words)
        finally:
            link.close("users changed")

    async def _to(self, link: Link, words: tuple[bytes, ...]) -> None:
        await link.call(*words, timeout_s=_CALL_S)
        with suppress(RedisError):
            # Where users are in a file, they are to survive a restart.
            await link.call(b"ACL", b"SAVE", timeout_s=_CALL_S)

    def link_up(self, link: Link) -> None:
        """Make the users again: this server may not have them."""
        spawn(self._make_again(link), "redis-users")

    async def _make_again(self, link: Link) -> None:
        now = self._clock()
        for version_id, expires_at in list(self._expires_at.items()):
            if expires_at < now:
                del self._expires_at[version_id]
                continue
            with suppress(RedisError):
                await self._to(
                    link, (b"ACL", b"SETUSER", *self._users.rules(version_id, now, expires_at))
                )

    def link_down(self, _link: Link) -> None:
        """Nothing: the connection looks for the master again."""


def worker_credentials(
    redis: GatewayRedisSettings, region: str, worker_urls: tuple[str, ...]
) -> WorkerCredentials | None:
    """Return the issuer of workers' logins, `None` if the gateway itself has no password."""
    options = redis_options(redis, "gateway-users", ())
    secret = options.password or next(
        (server.password for server in map(parse_server, redis.urls) if server.password), ""
    )
    if not secret:
        return None
    return RedisWorkerCredentials(options, WorkerUsers(secret, region), worker_urls)
