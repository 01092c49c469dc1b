"""Tells of settings of a server with which calls can be lost, once for each server and value.

Each is one line ``redis.unsafe_setting``. Servers that do not show their settings, as many that are
rented, are not judged.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from queueing.redis.errors import RedisError
from queueing.redis.link import Link
from runtime.events import emit
from runtime.tasks import spawn

_MESSAGE_BYTES = 8 << 20
"""Twice what is on its way to one subscriber: 256 requests of 16 kB (`queueing.redis.consumer`)."""
_READ = (
    b"maxmemory-policy",
    b"appendonly",
    b"min-replicas-to-write",
    b"client-output-buffer-limit",
)

_log = logging.getLogger("queueing.redis.checks")


class UnsafeSetting(NamedTuple):
    """A setting, its value, the one that it should have, and what can happen otherwise."""

    setting: str
    value: str
    needed: str
    risk: str


def unsafe_settings(settings: Mapping[str, str], replicas: int) -> list[UnsafeSetting]:
    """Return what is unsafe at a master with so many replicas; what is unknown is left out."""
    found = []

    def check(setting: str, needed: str, risk: str, *, is_safe: bool) -> None:
        if setting in settings and not is_safe:
            found.append(UnsafeSetting(setting, settings[setting], needed, risk))

    check(
        "maxmemory-policy",
        "noeviction",
        "with a full memory the server drops parts of queues: calls are lost or run twice",
        is_safe=settings.get("maxmemory-policy") == "noeviction",
    )
    check(
        "appendonly",
        "yes",
        "a restart loses the queues: calls lose their place, or are lost with their gateway",
        is_safe=settings.get("appendonly") == "yes",
    )
    check(
        "min-replicas-to-write",
        "1",
        "a master that was replaced goes on accepting calls for seconds, and loses them",
        is_safe=not replicas or settings.get("min-replicas-to-write") != "0",
    )
    check(
        "client-output-buffer-limit",
        f"pubsub {_MESSAGE_BYTES} {_MESSAGE_BYTES} 60",
        "workers lose their connections under load, and calls wait for others",
        is_safe=_has_room(settings.get("client-output-buffer-limit", "")),
    )
    return found


def _has_room(limits: str) -> bool:
    """Read ``class hard soft seconds …`` (redis.conf); 0 is no limit."""
    words = limits.split(" ")
    if "pubsub" not in words:
        return True
    at = words.index("pubsub")
    return all(not 0 < int(limit) < _MESSAGE_BYTES for limit in words[at + 1 : at + 3])


class ServerChecks:
    """A `queueing.redis.connection.LinkListener`."""

    def __init__(self) -> None:
        self._reported: set[tuple[str, str, str]] = set()

    def link_up(self, link: Link) -> None:
        """Read the settings of this server."""
        spawn(self._check(link), "redis-checks")

    def link_down(self, _link: Link) -> None:
        """Nothing: what is safe does not depend on it."""

    async def _check(self, link: Link) -> None:
        try:
            settings = _texts(await link.call(b"CONFIG", b"GET", *_READ))
            role = await link.call(b"ROLE")
        except RedisError:
            return
        replicas = len(role[2]) if role[0] == b"master" else 0
        for found in unsafe_settings(settings, replicas):
            key = (str(link.server), found.setting, found.value)
            if key not in self._reported:
                self._reported.add(key)
                emit(
                    _log,
                    "redis.unsafe_setting",
                    logging.WARNING,
                    server=str(link.server),
                    **found._asdict(),
                )


def _texts(reply: Mapping[Any, Any]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in reply.items()}
