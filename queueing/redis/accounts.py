"""Logins of workers: one ACL user for the workers of each version (redis.io, "ACL").

A user may reach the keys and channels of its version's queue, by the commands that the scripts of
workers and their links need, and nothing else. It may not load scripts: one that never ends, after
a write, stops the server for everybody and cannot be killed. So the gateways load those of workers.

Servers do not copy users to each other, and forget them at a restart. The users of all deployed
versions are made again on every new link: at a server that was restarted, a replica that became the
master, a node of a cluster that got its first slot.

A login is valid for some hours: passwords are made from the gateway's own one, the version and the
time, so every gateway process makes the same ones without asking the others. A user has all that
are valid now or later, and loses the old ones whenever it is made again. A connection outlives its
password, but not its user.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from queueing.interface import QueueUnavailable, WorkerCredentials
from queueing.redis.addresses import without_login
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import RedisError, is_denied, is_unknown
from queueing.redis.keys import QueueKeys
from queueing.redis.link import Link
from runtime.events import emit
from runtime.tasks import spawn

_PERIOD_S = 21_600
_LIFETIME_S = 86_400.0
"""Logins are taken to be valid for so long at least, when a user is made again."""
_MAX_PASSWORDS = 200
_CALL_S = 3.0
_AT_ONCE = 100
LINK_COMMANDS = (
    b"+ping +hello +auth +info +client|reply +cluster|slots +ssubscribe +sunsubscribe +evalsha"
).split()
"""What the links of a worker send."""
SCRIPT_COMMANDS = (
    b"+time +exists +spublish +hget +hset +hdel +hincrby +hkeys +zadd +zrem +zpopmin +zcard "
    b"+zrangebyscore +lpop +rpush +lrem"
).split()
"""What the scripts of a worker call: the server asks for these rights too."""

_log = logging.getLogger("queueing.redis.accounts")


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
        """Passwords are made from ``secret``.

        It is stretched first: a worker knows one of the passwords, and could guess the secret by
        making others.
        """
        salt = f"users of workers in {region}".encode()
        self._key = hashlib.scrypt(secret.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=32)
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
            b"~%b" % key,
            b"~%b:*" % key,
            b"&%b:*" % key,
            *LINK_COMMANDS,
            *SCRIPT_COMMANDS,
        ]

    def _password(self, version_id: str, period: int) -> str:
        text = f"{self.name(version_id)} {period}".encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


class RedisWorkerCredentials:
    """A `queueing.interface.WorkerCredentials`, and a `queueing.redis.connection.LinkListener`."""

    def __init__(
        self,
        connection: RedisConnection,
        users: WorkerUsers,
        worker_urls: tuple[str, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``worker_urls`` are the servers' as workers reach them."""
        self._connection = connection
        self._users = users
        self._urls = tuple(without_login(url) for url in worker_urls)
        self._clock = clock
        self._deployed: Callable[[], Iterable[str]] = tuple
        self._lifetime_s = _LIFETIME_S
        self._is_denied = False

    def start(self, deployed: Callable[[], Iterable[str]]) -> None:
        """Make the users of all deployed versions, now and on every new link."""
        self._deployed = deployed
        self._connection.add_listener(self)
        for link in self._connection.links:
            self.link_up(link)

    async def close(self) -> None:
        """End that; the users stay."""
        self._connection.remove_listener(self)

    async def issue(
        self,
        version_id: str,
        deployment_id: str,  # noqa: ARG002 - users are of versions
        instance_id: str,  # noqa: ARG002
        expires_at: float,
    ) -> Mapping[str, object]:
        """Return a login that is valid until ``expires_at``, in Unix seconds.

        It is empty, and workers use their own settings, if the gateway may not make users.
        """
        now = self._clock()
        self._lifetime_s = max(self._lifetime_s, expires_at - now)
        if not await self._everywhere(b"ACL", b"SETUSER", *self._rules(version_id, now)):
            return {}
        login = {
            "urls": self._urls,
            "sentinelMaster": self._connection.options.sentinel_master,
            "user": self._users.name(version_id),
            "password": self._users.password(version_id, expires_at),
        }
        return {"redis": login}

    async def remove(self, version_ids: Sequence[str]) -> None:
        """Delete the users of versions, which ends their connections."""
        names = [self._users.name(version_id).encode() for version_id in version_ids]
        if names:
            await self._everywhere(b"ACL", b"DELUSER", *names)

    def _rules(self, version_id: str, now: float) -> list[bytes]:
        return self._users.rules(version_id, now, now + self._lifetime_s)

    async def _everywhere(self, *words: bytes) -> bool:
        """Send a command to all masters; return whether we may."""
        if not self._connection.is_connected():
            raise QueueUnavailable(f"not connected: {self._connection.last_error}")
        try:
            for link in self._connection.links:
                await link.call(*words, timeout_s=_CALL_S)
        except RedisError as error:
            if self._denied(error):
                return False
            raise QueueUnavailable(f"users cannot be changed: {error}") from error
        return True

    def _denied(self, error: RedisError) -> bool:
        """Return whether we may not make users, and tell it once."""
        if not is_denied(error) and not is_unknown(error):
            return False
        if not self._is_denied:
            self._is_denied = True
            emit(_log, "redis.users_denied", logging.WARNING, error=str(error))
        return True

    def link_up(self, link: Link) -> None:
        """Make the users again: this server may not have them."""
        spawn(self._make_again(link), "redis-users")

    async def _make_again(self, link: Link) -> None:
        now = self._clock()
        versions = list(self._deployed())
        try:
            for start in range(0, len(versions), _AT_ONCE):
                part = [self._rules(version, now) for version in versions[start : start + _AT_ONCE]]
                calls = [link.call(b"ACL", b"SETUSER", *rules, timeout_s=_CALL_S) for rules in part]
                await asyncio.gather(*calls)
        except RedisError as error:
            if not self._denied(error) and not link.is_lost:
                emit(_log, "redis.users_not_made", logging.WARNING, error=str(error))

    def link_down(self, _link: Link) -> None:
        """Nothing: what is sent now fails."""


def worker_credentials(
    connection: RedisConnection, region: str, worker_urls: tuple[str, ...]
) -> WorkerCredentials | None:
    """Return the issuer of workers' logins, `None` if the gateway itself has no password."""
    options = connection.options
    passwords = [options.password, *(server.password for server in options.servers)]
    secret = next(filter(None, passwords), "")
    if not secret:
        return None
    return RedisWorkerCredentials(connection, WorkerUsers(secret, region), worker_urls)
