"""A connection to a NATS cluster, over one socket after another, with its subscriptions.

Nothing is buffered while there is no server: a send without a link fails at once, and the sender
decides what to do. A server in lame-duck mode is left for another one before it stops, in an order
that loses no reply: let the old server respond to what was sent, hold new frames, unsubscribe
there, subscribe at the new server, send what was held. What other servers of the cluster send to
the old one while it unsubscribes is lost: a lease among it is delivered again when it expires.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any, NamedTuple

from queueing.interface import ConnectionListener
from queueing.nats.login import ConnectionOptions, LoginError, parse_server
from queueing.nats.protocol import (
    STATUS_NO_RESPONDERS,
    MessageHandler,
    denied_subject,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
    is_slow_consumer,
    status_of,
)
from queueing.nats.transport import Link, LinkError, LinkRefused, Traffic, open_link
from queueing.servers import Server
from runtime.events import emit
from runtime.tasks import spawn
from runtime.timeouts import silence_limit

_STEADY_AFTER_S = 5.0
_RESPONSE_S = 0.25
_HANDOVER_S = 2.0
_DEFAULT_MAX_PAYLOAD = 1 << 20
_CLOSED = "closed by the client"

_log = logging.getLogger("queueing.nats.connection")


class NatsError(Exception):
    """A request to the broker got no usable response."""


class NotConnected(NatsError):
    """There is no link, or it was lost before the response."""


class NoResponders(NatsError):
    """Nothing subscribes to the subject: no such stream, or JetStream is disabled."""


class Denied(NatsError):
    """The login has no permission to publish to the subject."""


class NoResponse(NatsError):
    """No response arrived in time."""


DeniedHandler = Callable[[bytes], None]
"""Called with a subject that the server does not permit us to publish or subscribe to."""


class Subscription:
    """One subscription, ended by `NatsConnection.unsubscribe`."""

    __slots__ = ("group", "sid", "subject")

    def __init__(self, sid: bytes, subject: bytes, group: bytes) -> None:
        self.sid = sid
        self.subject = subject
        self.group = group


class Reply(NamedTuple):
    """The response to a request."""

    headers: bytes
    payload: bytes


class NatsConnection:
    """One client of a NATS cluster, over one socket at a time.

    Counters for metrics: ``connects``, ``losses``, ``lame_ducks``, ``refusals`` (``-ERR``), of them
    ``slow_consumers``, and ``failures`` of this client: failed attempts to connect, failed message
    handlers, links that we closed because of an error.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        """Raises `LoginError` for an invalid server URL."""
        self._options = options
        self._servers = [parse_server(url) for url in options.servers]
        random.shuffle(self._servers)
        self._discovered: list[Server] = []
        self._server: Server | None = None
        self._link: Link | None = None
        self._handlers: dict[bytes, MessageHandler] = {}
        self._subscriptions: dict[bytes, Subscription] = {}
        self._listeners: dict[ConnectionListener, DeniedHandler | None] = {}
        self._sids = self._inboxes = 0
        self._inbox_prefix = f"{options.inbox_prefix}.{token_hex(11)}".encode()
        self._requests: dict[bytes, tuple[bytes, asyncio.Future[Reply]]] = {}
        self._replies: Subscription | None = None
        self._runner: asyncio.Task[None] | None = None
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._is_moving = False
        self.max_payload_bytes = _DEFAULT_MAX_PAYLOAD
        self.last_error, self._carried = "", Traffic()
        self.connects = self.losses = self.lame_ducks = 0
        self.refusals = self.slow_consumers = self.failures = 0

    @property
    def traffic(self) -> Traffic:
        """What this connection has carried, over all its links."""
        return self._carried if self._link is None else self._carried.plus(self._link.traffic())

    # Start and end

    def start(self) -> None:
        """Begin to connect; a lost link is replaced, until `close`."""
        if self._runner is None:
            self._runner = spawn(self._run(), "nats-connection")

    async def wait_connected(self) -> None:
        """Return as soon as there is a link. Bound the wait with ``asyncio.timeout``."""
        await self._up.wait()

    async def close(self) -> None:
        """Write what is buffered, then end. Pending requests fail."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
            self._runner = None
        link = self._link
        if link is not None:
            await self._round_trip(link)
        # The server may have gone meanwhile.
        if link is not None and link is self._link:
            emit(_log, "nats.closed", server=str(self._server))
            link.close(_CLOSED)
            self._end_link(_CLOSED)

    def is_connected(self) -> bool:
        """Whether a frame can be sent now."""
        return self._link is not None

    def is_clustered(self) -> bool:
        """Whether the present server belongs to a cluster."""
        return self._link is not None and bool(self._link.info.get("cluster"))

    @property
    def server(self) -> str:
        """Host and port of the present server, empty without a link."""
        return str(self._server) if self._link is not None else ""

    @property
    def server_info(self) -> Mapping[str, Any]:
        """What the present server has said about itself (INFO), empty without a link."""
        return self._link.info if self._link is not None else {}

    def add_listener(
        self, listener: ConnectionListener, denied: DeniedHandler | None = None
    ) -> None:
        """Call ``listener`` for all changes of the link from now on, and ``denied``, if given."""
        self._listeners[listener] = denied

    def remove_listener(self, listener: ConnectionListener) -> None:
        """Call neither of them any more."""
        del self._listeners[listener]

    # Messages

    def send(self, frame: bytes) -> bool:
        """Send one encoded frame; return `False` without a link or with a full buffer."""
        link = self._link
        return link is not None and link.send(frame)

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> bool:
        """Publish one message; the result is as from `send`."""
        link = self._link
        return link is not None and link.send(encode_publish(subject, reply, payload))

    def subscribe(
        self, subject: bytes, handler: MessageHandler, group: bytes = b""
    ) -> Subscription:
        """Call ``handler`` for messages to ``subject``, also after every reconnect."""
        self._sids += 1
        subscription = Subscription(b"%d" % self._sids, subject, group)
        self._handlers[subscription.sid] = handler
        self._subscriptions[subscription.sid] = subscription
        self.send(encode_subscribe(subject, subscription.sid, group))
        return subscription

    def unsubscribe(self, subscription: Subscription, late: MessageHandler | None = None) -> None:
        """End it. Messages already on their way are still handled, by ``late`` if given."""
        sid = subscription.sid
        if self._subscriptions.pop(sid, None) is None:
            return
        link = self._link
        if link is None:
            self._handlers.pop(sid, None)
            return
        if late is not None:
            self._handlers[sid] = late
        link.send(encode_unsubscribe(sid))
        link.ping(lambda: self._forget(sid))

    def ping(self, done: Callable[[], None]) -> None:
        """Call ``done`` when the server has read all that was sent so far; never without a link."""
        if self._link is not None:
            self._link.ping(done)

    def _forget(self, sid: bytes) -> None:
        self._handlers.pop(sid, None)

    def inbox(self) -> bytes:
        """Return a unique reply subject; further tokens may be added."""
        self._inboxes += 1
        return b"%b.%d" % (self._inbox_prefix, self._inboxes)

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> Reply:
        """Publish and return the first response. Raises `NatsError`."""
        if self._replies is None:
            self._replies = self.subscribe(self._inbox_prefix + b".r.*", self._on_reply)
        self._inboxes += 1
        inbox = b"%b.r.%d" % (self._inbox_prefix, self._inboxes)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._requests[inbox] = (subject, future)
        try:
            if not self.publish(subject, payload, inbox):
                raise NotConnected(f"not connected: {self.last_error}")
            async with silence_limit(timeout_s):
                reply = await future
        except TimeoutError as error:
            raise NoResponse(f"no response from {subject.decode()} in {timeout_s} s") from error
        finally:
            del self._requests[inbox]
        if reply.headers and status_of(reply.headers) == STATUS_NO_RESPONDERS:
            raise NoResponders(f"no responders on {subject.decode()}")
        return reply

    def _on_reply(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        asked = self._requests.get(subject)
        if asked is not None and not asked[1].done():
            asked[1].set_result(Reply(headers, payload))

    async def flush(self) -> bool:
        """Wait until the server has processed everything sent so far, or the link is lost.

        Return False if neither was so in time.
        """
        return self._link is None or await self._round_trip(self._link)

    # Connecting

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            if failures:
                spread = random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing
                await asyncio.sleep(spread * self._options.delay_s(failures))
            link = await self._open_any(self._candidates())
            if link is None:
                failures += 1
                continue
            self._adopt(link)
            since = loop.time()
            await self._down.wait()
            # Wait longer each time for a server that accepts connections and closes them at once.
            failures = 1 if loop.time() - since >= _STEADY_AFTER_S else failures + 1

    def _candidates(self) -> list[Server]:
        known = self._servers + [s for s in self._discovered if s not in self._servers]
        if self._server in known:
            # Try the server that was just lost last.
            first = known.index(self._server) + 1
            return known[first:] + known[:first]
        return known

    async def _open_any(self, servers: list[Server]) -> Link | None:
        for server in servers:
            try:
                link = await open_link(server, self, self._handlers, self._options)
            except (LinkError, LoginError, OSError) as error:
                self.failures += 1
                self.last_error = f"{server}: {str(error) or type(error).__name__}"
                emit(_log, "nats.connect_failed", logging.WARNING, error=self.last_error)
                # What a renewal tries is not missed as long as the present link goes on.
                if isinstance(error, LinkRefused) and self._link is None and self._options.refused:
                    self._options.refused()
                continue
            self._server = server
            return link
        return None

    def _adopt(self, link: Link) -> None:
        self._carried = self.traffic
        self._link = link
        for subscription in self._subscriptions.values():
            link.send(encode_subscribe(subscription.subject, subscription.sid, subscription.group))
        self.link_info(link)
        self.connects += 1
        self._down.clear()
        self._up.set()
        emit(_log, "nats.connected", server=self.server)
        for listener in tuple(self._listeners):
            listener.connected()

    def link_info(self, link: Link) -> None:
        """Take limits and other servers from INFO; leave a server that is about to stop."""
        if link is not self._link:
            return
        info = link.info
        self.max_payload_bytes = info.get("max_payload", _DEFAULT_MAX_PAYLOAD)
        is_tls = self._server is not None and self._server.tls
        discovered = []
        for url in info.get("connect_urls") or ():
            with suppress(LoginError):
                discovered.append(parse_server(url)._replace(tls=is_tls))
        self._discovered = discovered
        if info.get("ldm") and not self._is_moving:
            self._is_moving = True
            self.lame_ducks += 1
            spawn(self._move(link), "nats-lame-duck")

    def link_refused(self, link: Link, text: str) -> None:
        """Report a missing permission; after any other error the server ends the link itself."""
        self.refusals += 1
        self.slow_consumers += is_slow_consumer(text)
        self.last_error = text
        emit(_log, "nats.refused", logging.ERROR, server=self.server, error=text)
        if link is not self._link:
            return
        if subject := denied_subject(text):
            for asked, future in self._requests.values():
                if asked == subject and not future.done():
                    future.set_exception(Denied(text))
            for denied in tuple(self._listeners.values()):
                if denied is not None:
                    denied(subject)

    def link_failed(self) -> None:
        """Count a failure on our side."""
        self.failures += 1

    def link_lost(self, link: Link, reason: str) -> None:
        """Fail all pending requests, unless the link has been replaced before."""
        if link is not self._link:
            return
        self.losses += 1
        emit(_log, "nats.disconnected", logging.WARNING, server=str(self._server), reason=reason)
        self._end_link(reason)

    def _end_link(self, reason: str) -> None:
        self._carried = self.traffic
        self._link = None
        self.last_error = reason
        self._up.clear()
        self._down.set()
        for _, future in self._requests.values():
            if not future.done():
                future.set_exception(NotConnected(reason))
        for listener in tuple(self._listeners):
            listener.disconnected()

    # Changing to another link

    async def renew(self) -> bool:
        """Log in again with the present credentials, on a new link that takes over without a gap.

        Returns `False` without a link, or when no second one could be made: the old one continues.
        """
        old = self._link
        if old is None or self._is_moving:
            return False
        self._is_moving = True
        try:
            if new := await self._open_any(self._candidates()[-1:]):
                await self._hand_over(old, new, "renewed")
            return new is not None and self._link is new
        finally:
            self._is_moving = False

    async def _move(self, old: Link) -> None:
        """Change to another server, if there is one, before this one closes."""
        try:
            jitter_s = random.uniform(0.0, self._options.lame_duck_jitter_s)  # noqa: S311 - as above
            await asyncio.sleep(jitter_s)
            left = self._server
            others = [server for server in self._candidates() if server != left]
            new = await self._open_any(others) if self._link is old else None
            if new is None:
                return
            if new.info.get("server_id") == old.info.get("server_id") or new.info.get("ldm"):
                self._server = left
                new.close("the same server")
                return
            await self._hand_over(old, new, "lame duck")
        finally:
            self._is_moving = False

    async def _hand_over(self, old: Link, new: Link, reason: str) -> None:
        await self._round_trip(old)
        old.hold()
        # JetStream responds after the PONG: wait for replies to what was sent.
        await asyncio.sleep(_RESPONSE_S)
        unsubscribe = b"".join([encode_unsubscribe(sid) for sid in self._subscriptions])
        await self._round_trip(old, unsubscribe)
        if self._link is not old:
            new.close("too late")
            return
        held = old.take_held()
        self._adopt(new)
        for frame in held:
            new.send(frame)
        for done in old.take_held_pings():
            new.ping(done)
        old.close(reason)

    async def _round_trip(self, link: Link, while_held: bytes | None = None) -> bool:
        processed = asyncio.Event()
        if while_held is not None:
            link.send_while_held(while_held, processed.set)
        else:
            link.ping(processed.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(_HANDOVER_S):
                await processed.wait()
        return processed.is_set()
