"""The queue on Valkey: one server, or a master, a replica and three Sentinels."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from queueing.redis.scripts import script
from runtime.tasks import spawn
from tests.chaos.history import FaultKind, Gauge
from tests.chaos.parts import Part
from tests.support.network import Link
from tests.support.redis_server import binary
from tests.support.redis_topologies import Address, sentinel_configs
from tests.support.waiting import PATIENCE_S, until

MASTER, REPLICA = "master", "replica"
"""What faults call the server that is the master when they begin, and the other one."""
ALONE = "redis"
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
KINDS = (FaultKind.DISCONNECT, FaultKind.FLUSH, FaultKind.BUSY, FaultKind.FULL)
RESTS_S = {"redis": 3.0, "sentinel": 12.0}
"""The broker is left alone for as long after a fault: an old master is told late that it is one."""
_SERVERS = ("redis-1", "redis-2")
_NAME = "queue"
_PORT, _SENTINEL_PORT = 16379, 26379
_DOWN_AFTER_MS = 1000
_REPLY_S = 2.0
_AGAIN_S = 0.1
_DOWN = frozenset({"s_down", "o_down", "disconnected"})
_CONNECTIONS = (("normal", "pubsub"), ("normal",), ("pubsub",))

Place = tuple[list[str], dict[str, Link], str]
"""A machine's prefix for commands, its links, and its address."""


class RedisBroker:
    """Servers and Sentinels as parts. ``folder`` keeps their files over restarts.

    ``has_sentinels`` decides between the two forms. With ``is_kept`` every command is in a file
    before its reply, otherwise a server that restarts is empty.
    """

    def __init__(
        self, place: Callable[[str], Place], folder: Path, *, has_sentinels: bool, is_kept: bool
    ) -> None:
        """``place`` makes the machine of a part."""
        self.parts: dict[str, Part] = {}
        self._folder = folder
        self._is_kept = is_kept
        self._addresses: dict[str, Address] = {}
        servers = _SERVERS if has_sentinels else (ALONE,)
        sentinels = SENTINELS if has_sentinels else ()
        places = {name: place(name) for name in (*servers, *sentinels)}
        for name, (_, _, host) in places.items():
            self._addresses[name] = (host, _SENTINEL_PORT if name in sentinels else _PORT)
        self.servers, self._sentinels = servers, sentinels
        for name in servers:
            is_replica = name != servers[0]
            self._add(
                name, places[name], self._server_config(is_replica=is_replica), "Ready to acc"
            )
        configs = sentinel_configs(
            _NAME,
            self._addresses[servers[0]],
            self._addresses[servers[-1]],
            [self._addresses[name] for name in sentinels],
            _DOWN_AFTER_MS,
        )
        for name, config in zip(sentinels, configs, strict=True):
            self._add(name, places[name], config, "Sentinel ID is", "--sentinel")

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings of gateways and agents, without their prefix."""
        hosts = [self._addresses[name] for name in self._sentinels or self.servers]
        return {
            "QUEUE__BACKEND": "redis",
            "REDIS__URLS": ",".join(f"redis://{host}:{port}" for host, port in hosts),
            "REDIS__SENTINEL_MASTER": _NAME if self._sentinels else "",
        }

    async def part(self, target: str) -> Part | None:
        """Return the part that ``target`` is now, `None` if it is none of ours."""
        if target in (MASTER, REPLICA):
            master = await asyncio.to_thread(self._master)
            other = next(name for name in self.servers if name != master)
            return self.parts[master if target == MASTER else other]
        return self.parts.get(target)

    async def do(self, kind: FaultKind, number: int, lasts_s: float) -> None:
        """Do to the master what is none of a process's faults; return when it is over.

        ``number`` decides which connections end.
        """
        master = await asyncio.to_thread(self._master)
        if kind is FaultKind.FLUSH:
            await self._run(master, "SCRIPT", "FLUSH")
        elif kind is FaultKind.DISCONNECT:
            for type_ in _CONNECTIONS[number % len(_CONNECTIONS)]:
                await self._run(master, "CLIENT", "KILL", "TYPE", type_, "SKIPME", "yes")
        elif kind is FaultKind.FULL:
            await self._run(master, "CONFIG", "SET", "maxmemory", "1")
            await asyncio.sleep(lasts_s)
            await self._run(master, "CONFIG", "SET", "maxmemory", "0")
        elif kind is FaultKind.BUSY:
            endless = spawn(asyncio.to_thread(self._run_endless, master), "endless")
            await asyncio.sleep(lasts_s)
            await self._until(lambda: self._kill_script(master), PATIENCE_S)
            await endless
        elif kind is FaultKind.FAILOVER:
            await self._until(self._order_failover, PATIENCE_S)
            await self._until(lambda: self._master() != master, PATIENCE_S)

    async def settled(self, timeout_s: float) -> bool:
        """Wait until all agree on one master, and the replica follows it; False if they do not."""
        return await self._until(self._is_settled, timeout_s)

    async def restored(self, timeout_s: float) -> bool:
        """Wait until every Sentinel could make the replica the master; False if one cannot."""
        return await self._until(self._is_restored, timeout_s)

    def gauges(self, agents: int, slots: int) -> list[Gauge]:
        """Return what the queues hold, with the most that they may.

        There are ``agents`` with ``slots`` each, which register as many requests or a few less.
        """
        held: Counter[str] = Counter()
        workers = 0
        try:
            with self._client(self._master()) as client:
                run = client.info("server")["run_id"][:16]
                for key in client.scan_iter("rq:{*}"):
                    # As a control plane does: no gateway looks at a queue in which it has nothing.
                    client.eval(script("look").text.decode(), 1, key, "0", "+inf", run, "", "0")
                    held["queued"] += client.hlen(f"{key}:e")
                    for line in ("w", "r", "d"):
                        held[f"in line {line}"] += client.zcard(f"{key}:{line}")
                    held["leased"] += sum(client.hlen(f"{key}:l{bucket}") for bucket in range(16))
                    registered = Counter(client.lrange(f"{key}:i", 0, -1))
                    channels = set(client.execute_command("PUBSUB", "SHARDCHANNELS", f"{key}:c:*"))
                    workers += sum(
                        count > slots / 2 and f"{key}:c:{worker}" in channels
                        for worker, count in registered.items()
                    )
        except (RedisError, RuntimeError):
            return [Gauge("queue", "masters that do not respond", 1, 0)]
        return [
            *(Gauge("queue", f"requests {state}", count, 0) for state, count in held.items()),
            Gauge("queue", "workers that are not registered", agents - workers, 0),
        ]

    def _add(self, name: str, place: Place, config: str, ready: str, *arguments: str) -> None:
        prefix, links, host = place
        folder = self._folder / name
        folder.mkdir()
        file = folder / "server.conf"
        file.write_text(
            f"bind {host}\nport {self._addresses[name][1]}\nprotected-mode no\n"
            f"dir {folder}\n{config}"
        )
        argv = [*prefix, binary("valkey"), file, *arguments]
        self.parts[name] = Part(name, argv, {}, lambda line: ready in line, links)

    def _server_config(self, *, is_replica: bool) -> str:
        master, port = self._addresses[self.servers[0]]
        return (
            'save ""\nbusy-reply-threshold 100\nrepl-diskless-sync-delay 0\n'
            + ("appendonly yes\nappendfsync always\n" if self._is_kept else "")
            + (f"replicaof {master} {port}\n" if is_replica else "")
        )

    # Commands, which block

    def _client(self, name: str) -> "Redis[str]":
        host, port = self._addresses[name]
        return Redis(
            host=host,
            port=port,
            socket_timeout=_REPLY_S,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def _run_blocking(self, name: str, *command: str) -> Any:
        with self._client(name) as client:
            return client.execute_command(*command)

    def _run_endless(self, name: str) -> None:
        with suppress(RedisError):
            self._run_blocking(name, "EVAL", "while true do end", "0")

    async def _run(self, name: str, *command: str) -> Any:
        return await asyncio.to_thread(self._run_blocking, name, *command)

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition that runs commands is true; errors are as good as false."""

        async def holds() -> bool:
            with suppress(RedisError, RuntimeError):
                if await asyncio.to_thread(condition):
                    return True
            await asyncio.sleep(_AGAIN_S)
            return False

        with suppress(AssertionError):
            await until(holds, bool, timeout_s=timeout_s)
            return True
        return False

    def _roles(self) -> dict[str, list[Any]]:
        return {name: self._run_blocking(name, "ROLE") for name in self.servers}

    def _master(self) -> str:
        """Return the server that the Sentinels call the master. Raises `RedisError`."""
        for name in self._sentinels:
            with suppress(RedisError):
                return self._master_at(name)
        return self.servers[0]

    def _master_at(self, sentinel: str) -> str:
        host, _ = self._run_blocking(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", _NAME)
        return next(name for name in self.servers if self._addresses[name][0] == host)

    def _is_settled(self) -> bool:
        roles = self._roles()
        if not self._sentinels:
            return all(role[0] == "master" for role in roles.values())
        master = self._master()
        states = [self._run_blocking(name, "SENTINEL", "MASTER", _NAME) for name in self._sentinels]
        if any(state["flags"] != "master" for state in states):
            # A failover can follow, or goes on.
            return False
        return all(
            role[0] == "master" if name == master else role[0] == "slave" and role[3] == "connected"
            for name, role in roles.items()
        )

    def _is_restored(self) -> bool:
        if not self._is_settled():
            return False
        master = self.servers[0] if not self._sentinels else self._master()
        for name in self._sentinels:
            (replica,) = self._run_blocking(name, "SENTINEL", "REPLICAS", _NAME)
            others = self._run_blocking(name, "SENTINEL", "SENTINELS", _NAME)
            if self._master_at(name) != master or replica["master-link-status"] != "ok":
                return False
            if any(_DOWN.intersection(one["flags"].split(",")) for one in (replica, *others)):
                return False
        return True

    def _order_failover(self) -> bool:
        self._run_blocking(self._sentinels[0], "SENTINEL", "FAILOVER", _NAME)
        return True

    def _kill_script(self, master: str) -> bool:
        try:
            self._run_blocking(master, "SCRIPT", "KILL")
        except RedisError as error:
            return "NOTBUSY" in str(error)
        return True
