"""Connections to the masters of one Redis: a server, the master of Sentinels, or a cluster.

Nothing is buffered while there is no master: a send without a link fails at once, and the sender
decides what to do. After each loss the master is looked for again: an old master may acknowledge
writes for seconds after another has taken its place, and then ends all connections.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from queueing.redis.commands import SLOTS, encode
from queueing.redis.errors import (
    NO_LONGER_MASTER,
    LoginRefused,
    Redirect,
    RedisError,
    ReplyError,
    is_passing,
    redirect_of,
)
from queueing.redis.link import Link, LinkOwner, RedisOptions, Reply, open_link
from queueing.redis.scripts import script
from queueing.redis.sentinels import SentinelWatch
from queueing.redis.topology import find_masters
from queueing.servers import Server, longest_pause_s
from runtime.events import emit
from runtime.repeats import Repeats
from runtime.tasks import spawn

_STEADY_AFTER_S = 5.0
_CLOSED = "closed by the client"

_log = logging.getLogger("queueing.redis.connection")


class LinkListener(Protocol):
    """What is called when the link to a master changes."""

    def link_up(self, link: Link) -> None:
        """There is a link to a master, or one has got slots that had another master before."""

    def link_down(self, link: Link) -> None:
        """The link is lost; no reply arrives to what was sent on it."""


class RedisConnection(LinkOwner):
    """One client of a Redis, with one link to each master.

    ``is_refused``: the latest attempt to connect failed because of the login.
    Counters for metrics: ``connects``, ``losses``, ``errors`` (error replies that were reported
    with `note_error`) and ``failures`` to connect.
    """

    def __init__(self, options: RedisOptions) -> None:
        self.options = options
        self._links: dict[Server, Link] = {}
        self._owners: list[Server | None] = [None] * SLOTS
        self._masters: tuple[Server, ...] = ()
        self._listeners: dict[LinkListener, None] = {}
        self._runner: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._up = asyncio.Event()
        self.is_refused = False
        self.last_error = ""
        self._repeats = Repeats()
        self.connects = self.losses = self.errors = self.failures = 0
        self._carried = [0, 0, 0, 0]
        self._loading: set[Link] = set()
        self._sentinels = (
            SentinelWatch(options, self._switched) if options.sentinel_master else None
        )

    # Start and end

    def start(self) -> None:
        """Begin to connect; a lost link is replaced, until `close`."""
        if self._runner is None:
            self._runner = spawn(self._run(), "redis-connection")
            if self._sentinels is not None:
                self._sentinels.start()

    async def close(self) -> None:
        """Write what is buffered, then end. Pending calls fail."""
        if self._sentinels is not None:
            await self._sentinels.close()
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
            self._runner = None
        for link in list(self._links.values()):
            with suppress(RedisError):
                await link.call(b"PING")
            link.close(_CLOSED)
            self._drop(link, _CLOSED)

    def is_connected(self) -> bool:
        """Whether a master has a link: a cluster works without some of its masters."""
        return bool(self._links)

    def is_complete(self) -> bool:
        """Whether every master that is known has a link."""
        return bool(self._links) and len(self._links) == len(self._masters)

    async def wait_connected(self) -> None:
        """Return as soon as there is a link to every master that can be reached."""
        await self._up.wait()

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that there are."""
        return tuple(self._links.values())

    @property
    def servers(self) -> str:
        """Host and port of the masters that there is a link to."""
        return ", ".join(str(server) for server in self._links)

    def add_listener(self, listener: LinkListener) -> None:
        """Call ``listener`` for all changes of links from now on."""
        self._listeners[listener] = None

    def remove_listener(self, listener: LinkListener) -> None:
        """Call it no more."""
        del self._listeners[listener]

    # Sending

    def link(self, slot: int) -> Link | None:
        """Return the link to the master that has the slot now, `None` if there is none."""
        owner = self._owners[slot]
        return self._links.get(owner) if owner is not None else None

    async def call(self, slot: int, frame: Callable[[Link], bytes], timeout_s: float) -> Reply:
        """Send a command to the master of a slot and return its reply; try again what passes.

        ``frame`` is called for each attempt. Raises `RedisError`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        delay_s = 0.02
        while True:
            link = self.link(slot)
            left_s = deadline - loop.time()
            if link is not None:
                try:
                    return await link.call_frame(frame(link), max(left_s, 0.01))
                except ReplyError as error:
                    if not self.note_error(link, error) or left_s <= delay_s:
                        raise
            elif left_s <= delay_s:
                raise RedisError(f"not connected: {self.last_error or 'no master is known'}")
            await asyncio.sleep(min(delay_s, max(left_s, 0.0)))
            delay_s = min(2 * delay_s, 0.5)

    def note_error(self, link: Link, error: RedisError) -> bool:
        """Do what an error reply asks for; return whether the same call can succeed later.

        Loads scripts that the server has forgotten, looks for the master that has the slot now,
        leaves a server that is no master any more.
        """
        self.errors += 1
        if not isinstance(error, ReplyError):
            return False
        self.last_error = f"{link.server}: {error}"
        kind = error.kind
        if kind == "NOSCRIPT":
            self._load_scripts(link)
        elif kind in NO_LONGER_MASTER:
            link.abort(str(error))
        elif kind in {"MOVED", "CLUSTERDOWN"}:
            if redirect := redirect_of(error):
                self._moved(link, redirect)
            self._changed.set()
        return is_passing(error)

    def _load_scripts(self, link: Link) -> None:
        if link in self._loading:
            # Many calls are refused at once.
            return
        self._loading.add(link)
        for name in self.options.scripts:
            link.send(encode(b"SCRIPT", b"LOAD", script(name).text), _ignore)
        if not link.send(encode(b"PING"), lambda _reply: self._loading.discard(link)):
            self._loading.discard(link)

    def _switched(self, host: str, port: int) -> None:
        """The Sentinels have made another server the master."""
        for link in self.links:
            if (link.server.host, link.server.port) != (host, port):
                link.abort("the Sentinels have chosen another master")

    def look_again(self) -> None:
        """Look for the masters again: a slot has moved."""
        self._changed.set()

    def _moved(self, link: Link, to: Redirect) -> None:
        server = link.server._replace(host=to.host or link.server.host, port=to.port)
        if self._owners[to.slot] == link.server:
            self._owners[to.slot] = server

    # Links

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._changed.clear()
            if await self._connect():
                since = loop.time()
                await self._changed.wait()
                # Wait longer each time for a server that accepts connections and ends them at once.
                failures = 1 if loop.time() - since >= _STEADY_AFTER_S else failures + 1
            else:
                failures += 1
            spread = random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing
            options = self.options
            pause_s = longest_pause_s(failures, options.reconnect_min_s, options.reconnect_max_s)
            await asyncio.sleep(spread * pause_s)

    async def _connect(self) -> bool:
        """Find the masters and open what is missing; return whether there is a link to each."""
        try:
            masters = await find_masters(self.options, self._masters)
        except (RedisError, OSError) as error:
            self._fail("redis", error)
            return False
        self._masters = tuple(masters)
        were = self._owners
        if len(masters) == 1 and masters[next(iter(masters))] is None:
            self._owners = [next(iter(masters))] * SLOTS
        else:
            owners: list[Server | None] = [None] * SLOTS
            for server, ranges in masters.items():
                for low, high in ranges or ():
                    owners[low : high + 1] = [server] * (high + 1 - low)
            self._owners = owners
        moved = [server for slot, server in enumerate(self._owners) if server != were[slot]]
        for server in [server for server in self._links if server not in masters]:
            self._links[server].close("no master any more")
            self._drop(self._links[server], "no master any more")
        for server in self._links.keys() & moved:
            self._tell_up(self._links[server])
        missing = [server for server in masters if server not in self._links]
        await asyncio.gather(*map(self._open, missing))
        if self._links:
            self._up.set()
        if is_complete := len(self._links) == len(masters):
            self._repeats.forget()
        return is_complete

    async def _open(self, server: Server) -> None:
        try:
            link = await open_link(server, self.options)
        except (RedisError, OSError) as error:
            self._fail(str(server), error)
            return
        if not link.is_master:
            link.close("not a master")
            self._fail(str(server), RedisError("not a master"))
            return
        link.owner = self
        self._links[server] = link
        self.is_refused = False
        self.connects += 1
        emit(_log, "redis.connected", server=str(server), version=link.version)
        self._tell_up(link)

    def _tell_up(self, link: Link) -> None:
        for listener in tuple(self._listeners):
            listener.link_up(link)

    def _fail(self, server: str, error: Exception) -> None:
        self.failures += 1
        self.is_refused = isinstance(error, LoginRefused)
        self.last_error = f"{server}: {str(error) or type(error).__name__}"
        if self._repeats.is_due(self.last_error):
            emit(_log, "redis.connect_failed", logging.WARNING, error=self.last_error)

    def link_lost(self, link: Link, reason: str) -> None:
        """Look for the master again."""
        if self._links.get(link.server) is not link:
            return
        self.losses += 1
        emit(_log, "redis.disconnected", logging.WARNING, server=str(link.server), reason=reason)
        self._drop(link, reason)

    def _drop(self, link: Link, reason: str) -> None:
        if self._links.get(link.server) is not link:
            return
        del self._links[link.server]
        for index, count in enumerate(_counts(link)):
            self._carried[index] += count
        self.last_error = f"{link.server}: {reason}"
        if not self._links:
            self._up.clear()
        self._changed.set()
        for listener in tuple(self._listeners):
            listener.link_down(link)

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """Bytes received and sent, replies and pushes received, commands sent."""
        totals = list(self._carried)
        for link in self._links.values():
            for index, count in enumerate(_counts(link)):
                totals[index] += count
        return (totals[0], totals[1], totals[2], totals[3])


def _counts(link: Link) -> tuple[int, int, int, int]:
    return (link.in_bytes, link.out_bytes, link.replies + link.pushes, link.out_frames)


def _ignore(_reply: Reply) -> None:
    return None
