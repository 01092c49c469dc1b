"""Several Redis or Valkey servers on loopback: a Cluster, and a master with Sentinels."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha1
from operator import methodcaller

from tests.support.free_ports import free_port
from tests.support.redis_server import RedisServer, Sentinel
from tests.support.waiting import until_blocking

SLOTS = 16384


class RedisCluster:
    """Masters of one Cluster, each with an equal share of the slots, and no replicas.

    Every node starts with a file that names all of them, so that no gossip is awaited. A Cluster
    accepts commands 2 s after its start at the earliest, whatever is done.
    """

    def __init__(self, kind: str = "valkey", masters: int = 3, args: Sequence[str] = ()) -> None:
        bus_ports = [free_port() for _ in range(masters)]
        self.nodes = [
            RedisServer(
                kind,
                [
                    *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
                    *("--cluster-port", str(port), "--cluster-node-timeout", "2000"),
                    *("--cluster-require-full-coverage", "no", *args),
                ],
            )
            for port in bus_ports
        ]
        self._ids = [sha1(str(port).encode()).hexdigest() for port in bus_ports]
        share = -(-SLOTS // masters)
        # Later servers than Redis 7.0 want the shards in the file.
        shard = "" if kind == "redis7" else ",,tls-port=0,shard-id={}"
        for me, node in enumerate(self.nodes):
            lines = [
                f"{self._ids[i]} 127.0.0.1:{other.port}@{bus_ports[i]}{shard.format(self._ids[i])} "
                f"{'myself,' if i == me else ''}master - 0 0 {i + 1} connected "
                f"{i * share}-{min((i + 1) * share, SLOTS) - 1}\n"
                for i, other in enumerate(self.nodes)
            ]
            file = node.folder / "nodes.conf"
            file.write_text("".join(lines) + f"vars currentEpoch {masters} lastVoteEpoch 0\n")

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(node.url for node in self.nodes)

    def start_blocking(self) -> None:
        """Start the nodes and return when every one of them accepts commands."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(methodcaller("start_blocking"), self.nodes))
        for node in self.nodes:
            until_blocking(
                partial(node.run_blocking, "CLUSTER", "INFO"),
                lambda info: "cluster_state:ok" in str(info),
                what="cluster_state:ok",
            )

    async def start(self) -> None:
        """Start all as `start_blocking` does; if one fails, none is left."""
        try:
            await asyncio.to_thread(self.start_blocking)
        except BaseException:
            await self.close()
            raise

    def close_blocking(self) -> None:
        for node in self.nodes:
            node.close_blocking()

    async def close(self) -> None:
        await asyncio.to_thread(self.close_blocking)

    async def owner(self, slot: int) -> RedisServer:
        """Return the node that has ``slot``."""
        for start, end, master, *_ in await self.nodes[0].run("CLUSTER", "SLOTS"):
            if start <= slot <= end:
                return next(node for node in self.nodes if node.port == master[1])
        raise AssertionError(f"no node has slot {slot}")

    async def begin_move(self, slot: int, target: RedisServer) -> None:
        """Put ``slot`` into the state in which its owner responds ASK for keys that it lacks."""
        source = await self.owner(slot)
        await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(source))
        await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(target))

    async def move_keys(self, slot: int, target: RedisServer, count: int = 1_000_000) -> int:
        """Move up to ``count`` keys of a slot that is being moved; return how many."""
        source = await self.owner(slot)
        keys = await source.run("CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            await source.run(
                *("MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, "KEYS", *keys),
            )
        return len(keys)

    async def finish_move(self, slot: int, target: RedisServer) -> None:
        """Make ``target`` the owner; every node knows it when this returns."""
        for node in [target, *(node for node in self.nodes if node is not target)]:
            await node.run("CLUSTER", "SETSLOT", slot, "NODE", self._id(target))

    async def move_slot(self, slot: int, target: RedisServer) -> None:
        """Move ``slot`` with its keys to ``target``."""
        await self.begin_move(slot, target)
        await self.move_keys(slot, target)
        await self.finish_move(slot, target)

    def _id(self, node: RedisServer) -> str:
        return self._ids[self.nodes.index(node)]


Address = tuple[str, int]
"""Host and port."""


def sentinel_configs(
    name: str, master: Address, replica: Address, sentinels: Sequence[Address], down_after_ms: int
) -> list[str]:
    """Return the configuration of each Sentinel, without its own address.

    All know each other from the start: they would need 2 s to find each other.
    """
    ids = [sha1(f"{host}:{port}".encode()).hexdigest() for host, port in sentinels]
    known = [
        f"sentinel known-sentinel {name} {host} {port} {own}\n"
        for own, (host, port) in zip(ids, sentinels, strict=True)
    ]
    return [
        f"sentinel myid {own}\n"
        f"sentinel monitor {name} {master[0]} {master[1]} {len(ids) // 2 + 1}\n"
        f"sentinel down-after-milliseconds {name} {down_after_ms}\n"
        f"sentinel failover-timeout {name} 5000\n"
        f"sentinel known-replica {name} {replica[0]} {replica[1]}\n"
        + "".join(known[:me] + known[me + 1 :])
        for me, own in enumerate(ids)
    ]


class SentinelSet:
    """A master with one replica, and Sentinels that replace it after half a second of silence.

    After a failover `master` and `replica` are still the servers that had these roles first.
    """

    name = "queue"
    """The name of the master at the Sentinels."""

    def __init__(
        self,
        kind: str = "valkey",
        sentinels: int = 1,
        args: Sequence[str] = (),
        *,
        down_after_ms: int = 500,
    ) -> None:
        self.master = RedisServer(kind, args)
        # Not over a file: Valkey 9.1 looks once a second whether it is complete.
        replica_of = (
            *("--replicaof", f"127.0.0.1 {self.master.port}"),
            *("--repl-diskless-load", "on-empty-db"),
        )
        self.replica = RedisServer(kind, [*args, *replica_of])
        self.sentinels = [Sentinel(kind) for _ in range(sentinels)]
        configs = sentinel_configs(
            self.name,
            ("127.0.0.1", self.master.port),
            ("127.0.0.1", self.replica.port),
            [("127.0.0.1", sentinel.port) for sentinel in self.sentinels],
            down_after_ms,
        )
        for sentinel, config in zip(self.sentinels, configs, strict=True):
            sentinel.config.write_text(config)

    @property
    def urls(self) -> tuple[str, ...]:
        """URLs of the Sentinels."""
        return tuple(sentinel.url for sentinel in self.sentinels)

    @property
    def servers(self) -> tuple[RedisServer, RedisServer]:
        return self.master, self.replica

    def start_blocking(self) -> None:
        """Start all and return when each Sentinel could make the replica the master."""
        # In this order: a replica looks for its master once a second, a Sentinel asks a replica for
        # its link every 10 s.
        self.master.start_blocking()
        self.replica.start_blocking()
        until_blocking(
            partial(self.replica.run_blocking, "ROLE"),
            lambda role: b"connected" in role,
            what="the replica's connection to its master",
        )
        with ThreadPoolExecutor(len(self.sentinels)) as threads:
            list(threads.map(methodcaller("start_blocking"), self.sentinels))
        for sentinel in self.sentinels:
            until_blocking(
                partial(self._state, sentinel),
                lambda state: state == ("ok", "slave", len(self.sentinels)),
                what="a Sentinel that reaches the replica and all other Sentinels",
            )

    async def start(self) -> None:
        """Start all as `start_blocking` does; if one fails, none is left."""
        try:
            await asyncio.to_thread(self.start_blocking)
        except BaseException:
            await self.close()
            raise

    def close_blocking(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close_blocking()

    async def close(self) -> None:
        await asyncio.to_thread(self.close_blocking)

    async def current(self) -> RedisServer:
        """Return the server that the first Sentinel calls the master."""
        _, port = await self.sentinels[0].run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(server for server in self.servers if server.port == int(port))

    async def fail_over(self) -> None:
        """Order a failover, which begins at once; `current` changes when it is done."""
        await self.sentinels[0].run("SENTINEL", "FAILOVER", self.name)

    def _state(self, sentinel: Sentinel) -> tuple[str, str, int]:
        """Return the replica's link to its master, its flags, and how many Sentinels there are."""
        (replica,) = sentinel.run_blocking("SENTINEL", "REPLICAS", self.name)
        others = sentinel.run_blocking("SENTINEL", "SENTINELS", self.name)
        up = sum(other[b"flags"] == b"sentinel" for other in others)
        return replica[b"master-link-status"].decode(), replica[b"flags"].decode(), up + 1
