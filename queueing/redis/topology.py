"""Finds the masters: of a server, of Sentinels or of a cluster."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from queueing.redis.errors import LoginRefused, NotConnected, RedisError
from queueing.redis.link import RedisOptions, open_link
from queueing.servers import Server

Ranges = Sequence[tuple[int, int]]
"""The first and last slot of each range."""

_NOT_MASTER = {False: "not a master", True: "a Sentinel: redis.sentinel_master is not set"}


async def find_masters(
    options: RedisOptions, known: Iterable[Server] = ()
) -> Mapping[Server, Ranges | None]:
    """Return the masters with their slots; `None` for one that has all because it is alone.

    ``known`` are the masters of before. Raises `RedisError` or ``OSError``.
    """
    if options.sentinel_master:
        return {await _ask_sentinels(options): None}
    servers = list(options.servers)
    random.shuffle(servers)
    error: Exception = NotConnected("no server is configured")
    for server in dict.fromkeys((*known, *servers)):
        try:
            link = await open_link(server, bare(options))
        except (RedisError, OSError) as failure:
            error = _named(server, failure)
            continue
        try:
            if not link.is_cluster:
                if link.is_master:
                    return {server: None}
                error = NotConnected(f"{server}: {_NOT_MASTER[link.is_sentinel]}")
                continue
            return read_slots(server, await link.call(b"CLUSTER", b"SLOTS"))
        except RedisError as failure:
            error = _named(server, failure)
        finally:
            link.close("topology read")
    raise error


async def _ask_sentinels(options: RedisOptions) -> Server:
    """Return the master that the first Sentinel knows. Raises `RedisError` or ``OSError``."""
    servers = list(options.servers)
    random.shuffle(servers)
    error: Exception = NotConnected("no Sentinel is configured")
    for server in servers:
        try:
            link = await open_link(server, bare(options), login=sentinel_login(options))
        except (RedisError, OSError) as failure:
            error = _named(server, failure)
            continue
        try:
            found = await link.call(
                b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", options.sentinel_master.encode()
            )
        except RedisError as failure:
            error = _named(server, failure)
            continue
        finally:
            link.close("topology read")
        if found:
            return Server(found[0].decode(), int(found[1]), server.tls)
        error = NotConnected(f"{server} knows no master {options.sentinel_master!r}")
    raise error


def sentinel_login(options: RedisOptions) -> tuple[str, str]:
    """Return user and password at the Sentinels."""
    return ("", options.sentinel_password) if options.sentinel_password else ("", "")


def bare(options: RedisOptions) -> RedisOptions:
    """Return the options of a link for questions only."""
    return replace(options, scripts=(), name="")


def _named(server: Server, failure: Exception) -> RedisError:
    kind = LoginRefused if isinstance(failure, LoginRefused) else NotConnected
    text = str(failure) or type(failure).__name__
    return kind(text if text.startswith(f"{server}: ") else f"{server}: {text}")


def read_slots(asked: Server, reply: list[list[Any]]) -> Mapping[Server, Ranges]:
    """Read CLUSTER SLOTS (redis.io): first and last slot, master, replicas, of each range."""
    found: dict[Server, list[tuple[int, int]]] = {}
    for low, high, master, *_replicas in reply:
        host, port = master[0], master[1]
        # Nodes that do not know their own address say nothing, or "?".
        is_known = host not in {None, b"", b"?"}
        server = asked._replace(host=host.decode() if is_known else asked.host, port=port)
        found.setdefault(server, []).append((low, high))
    if not found:
        raise NotConnected(f"{asked}: the cluster has no slots")
    return found
