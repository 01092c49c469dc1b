"""Finds the gateway process that holds a call: its address, and the secret with which it forwards.

A request id contains the number of the process that made it (`wire.ids`). Any other process asks
that process on ``nvcf.holder.<region>.<process in hex>``, in whichever region it is, and keeps what
it says until it does not respond any more. A process notes in the store that it has lived, so that
a call which died with its holder can be told from one that never was.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from gateway.errors import StoreUnavailable
from gateway.requests.regions import Regions
from gateway.store.names import META, PROCESSES
from gateway.store.records import Store
from http1.client.pool import Connect, Pool
from queueing.interface import Bus, NoResponder, Subscription
from runtime.events import emit
from runtime.tasks import spawn
from wire.subjects import holder_subject

_MAX_KNOWN = 256
"""Processes whose addresses are kept; the one that was not used for longest is forgotten."""
_IDLE_S = 30.0
_MAX_IDLE = 64
_CONNECT_S = 2.0
_RETRY_S = 5.0

_log = logging.getLogger("gateway.requests")


class Holder(NamedTuple):
    """Another process. ``pool`` are connections to its attach listener, at ``authority``."""

    authority: bytes
    secret: bytes
    pool: Pool


class Holders:
    """The other processes, as far as they were asked for; and this one, for them."""

    def __init__(self, bus: Bus, store: Store, regions: Regions, process: int) -> None:
        """``process`` is the number of this process."""
        self._bus = bus
        self._store = store
        self._regions = regions
        self._uri = ""
        self._known: OrderedDict[int, Holder] = OrderedDict()
        self._subscription: Subscription | None = None
        self._noting: asyncio.Task[None] | None = None
        self.process = process
        self.secret = secrets.token_urlsafe(32).encode()

    def start(self, attach_uri: str) -> None:
        """Respond to other processes from now on, and note that this process lives."""
        self._uri = attach_uri
        self._regions.start()
        subject = holder_subject(self._regions.own, self.process).encode()
        self._subscription = self._bus.subscribe(subject, self._on_question)
        self._noting = spawn(self._note(), "requests.note")

    def close(self) -> None:
        """Stop responding, and close the connections to other processes."""
        self._regions.close()
        if self._subscription is not None:
            self._subscription.unsubscribe()
        if self._noting is not None:
            self._noting.cancel()
        for holder in self._known.values():
            holder.pool.close()
        self._known.clear()

    def known(self, process: int) -> Holder | None:
        """Return a process that has told of itself."""
        holder = self._known.get(process)
        if holder is not None:
            self._known.move_to_end(process)
        return holder

    async def ask(self, process: int) -> Holder | None:
        """Return a process, `None` if there is none with this number.

        Raises `queueing.interface.QueueUnavailable` if that is not known: it does not respond, or
        the broker does not, or a region is away.
        """
        try:
            reply = await self._regions.ask(partial(holder_subject, process=process), b"?")
            uri, secret = orjson.loads(reply)
        except (NoResponder, ValueError):
            self.forget(process)
            return None
        parts = urlsplit(uri)
        if parts.hostname is None or parts.port is None:
            return None
        authority, secret = parts.netloc.encode(), secret.encode()
        holder = self._known.get(process)
        if holder is not None and (holder.authority, holder.secret) == (authority, secret):
            return holder
        self.forget(process)
        holder = Holder(
            authority,
            secret,
            Pool(
                _connect_to(parts.hostname, parts.port),
                idle_s=_IDLE_S,
                max_idle=_MAX_IDLE,
                connect_timeout_s=_CONNECT_S,
            ),
        )
        self._known[process] = holder
        if len(self._known) > _MAX_KNOWN:
            self.forget(next(iter(self._known)))
        return holder

    def forget(self, process: int) -> None:
        """Ask again the next time: the process did not respond. What it responds to goes on."""
        holder = self._known.pop(process, None)
        if holder is not None:
            holder.pool.resize(1)

    def tick(self) -> None:
        """Close connections that idle for too long, and those to machines that are gone."""
        for holder in self._known.values():
            holder.pool.sweep()

    async def has_lived(self, process: int) -> bool:
        """Return whether there ever was a process with this number. Raises `StoreUnavailable`."""
        return await self._store.get_raw(META, _note_name(process)) is not None

    async def _note(self) -> None:
        while True:
            try:
                await self._store.put_raw(META, _note_name(self.process), b"{}")
            except StoreUnavailable as error:
                emit(_log, "process.not_noted", logging.WARNING, error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _on_question(self, _subject: bytes, reply: bytes, _payload: bytes) -> None:
        if reply:
            self._bus.publish(reply, orjson.dumps([self._uri, self.secret.decode()]))


def _note_name(process: int) -> str:
    return f"{PROCESSES}{process:04x}"


def _connect_to(host: str, port: int) -> Connect:
    async def connect(factory: Callable[[], asyncio.Protocol]) -> None:
        await asyncio.get_running_loop().create_connection(factory, host, port)

    return connect
