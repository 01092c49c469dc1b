"""One socket to one server: login, replies matched in order, keep-alive.

A caller that is cancelled leaves its reply to be read by nobody, never to the next caller. Messages
of channels come as pushes of RESP3, between replies.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hiredis

from queueing.batched_socket import BatchedSocket
from queueing.redis.commands import encode
from queueing.redis.errors import (
    REFUSED,
    LoginRefused,
    NoResponse,
    NotConnected,
    RedisError,
    ReplyError,
)
from queueing.redis.scripts import script
from queueing.servers import Server
from runtime.events import emit
from runtime.timeouts import silence_limit

_MAX_QUIET_INTERVALS = 2
_IDLE_INTERVALS = 5
_NOTHING = object()
_MESSAGES = frozenset({b"smessage", b"message"})
_PING = encode(b"PING")
_SKIP = encode(b"CLIENT", b"REPLY", b"SKIP")

_log = logging.getLogger("queueing.redis.link")

Reply = Any
"""bytes, int, `None`, a list of replies, or `RedisError`: an error reply, or no reply."""
ReplyHandler = Callable[[Reply], None]
MessageHandler = Callable[[bytes, bytes], None]
"""Called with channel and payload of a message."""


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Options of all connections to one server, to the servers of Sentinels or to one cluster.

    With ``sentinel_master`` the ``servers`` are Sentinels, and its name. The login in a server's
    URL comes before ``user`` and ``password``; ``login`` returns another one, read at each connect.
    ``buffer_bytes`` bounds what waits for a slow server; a send beyond it fails. ``scripts`` are
    loaded on every connection.
    """

    servers: tuple[Server, ...]
    sentinel_master: str = ""
    user: str = ""
    password: str = ""
    sentinel_password: str = ""
    login: Callable[[], tuple[str, str] | None] | None = None
    tls: ssl.SSLContext | None = None
    name: str = ""
    scripts: tuple[str, ...] = ()
    connect_timeout_s: float = 5.0
    ping_interval_s: float = 5.0
    reconnect_min_s: float = 0.05
    reconnect_max_s: float = 1.0
    buffer_bytes: int = 32 << 20

    def credentials(self, server: Server) -> tuple[str, str]:
        """Return user and password for ``server``, both empty if there is no login."""
        found = self.login() if self.login is not None else None
        if found is not None:
            return found
        return server.user or self.user, server.password or self.password


class LinkOwner:
    """What a link reports to."""

    def link_lost(self, link: "Link", reason: str) -> None:
        """The link has ended. Called once, and only for a link that had been opened."""


class Link(BatchedSocket):
    """A socket that speaks RESP3. Made by `open_link`.

    ``run`` tells one life of the server process from the next, ``is_cluster`` whether it belongs to
    a cluster, ``is_sentinel`` whether it is a Sentinel. ``replies`` and ``pushes`` count what was
    received.
    """

    def __init__(self, server: Server, options: RedisOptions) -> None:
        super().__init__(options.buffer_bytes)
        self.server = server
        self.run = b""
        self.version = ""
        self.is_cluster = self.is_sentinel = self.is_master = False
        self.owner: LinkOwner | None = None
        self.on_message: MessageHandler = lambda _channel, _payload: None
        self.on_unsubscribed: Callable[[bytes], None] = lambda _channel: None
        self._reader = hiredis.Reader(
            replyError=ReplyError, protocolError=ReplyError, notEnoughData=_NOTHING
        )
        self._handlers: deque[ReplyHandler] = deque()
        self._ping_interval_s = options.ping_interval_s
        self._is_open = self._is_silent = False
        self._timer: asyncio.TimerHandle | None = None
        self._checked_bytes = self._checked_out = 0
        self._quiet_intervals = self._silent_intervals = 0
        self.replies = self.pushes = 0

    # Sending

    def send(self, frame: bytes, handler: ReplyHandler) -> bool:
        """Send one command; ``handler`` gets its reply, once. False: not sent, no call.

        A lost link calls it with `NotConnected`; the command may have been executed then.
        """
        if not self.send_frame(frame):
            return False
        self._handlers.append(handler)
        return True

    def subscribe(self, channel: bytes, handler: ReplyHandler, kind: bytes = b"ssubscribe") -> bool:
        """Subscribe to a channel; ``handler`` gets a confirmation or an error.

        ``kind`` is ``subscribe`` for a channel of Sentinels, which know no slots.
        """
        return self.send(encode(kind, channel), _Confirmation(kind, channel, handler))

    def unsubscribe(self, channel: bytes) -> bool:
        """Unsubscribe from a channel; messages on their way still arrive."""
        frame = encode(b"SUNSUBSCRIBE", channel)
        return self.send(frame, _Confirmation(b"sunsubscribe", channel, _ignore))

    def _on_confirmation(self, push: list[Any]) -> None:
        """A subscription began or ended: the reply to a command, unless the slot has moved."""
        head = self._handlers[0] if self._handlers else None
        if isinstance(head, _Confirmation) and [head.kind, head.channel] == push[:2]:
            self._handlers.popleft()(None)
        elif push[0] == b"sunsubscribe":
            self.on_unsubscribed(push[1])

    def send_silently(self, frame: bytes) -> bool:
        """Send one command to which the server sends no reply, nor an error. False: not sent.

        A server that is busy with a script ends the link: it replies to all that is sent then.
        """
        self._is_silent = True
        return self.send_frame(_SKIP + frame)

    async def call(self, *words: bytes, timeout_s: float = 2.0) -> Reply:
        """Send one command and return its reply. Raises `RedisError`."""
        return await self.call_frame(encode(*words), timeout_s)

    async def call_frame(self, frame: bytes, timeout_s: float = 2.0) -> Reply:
        """Send one encoded command and return its reply. Raises `RedisError`."""
        future: asyncio.Future[Reply] = self._loop.create_future()

        def settle(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        if not self.send(frame, settle):
            raise NotConnected(f"not connected to {self.server}")
        try:
            async with silence_limit(timeout_s):
                reply = await future
        except TimeoutError as error:
            raise NoResponse(f"no reply from {self.server} in {timeout_s} s") from error
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def ping(self) -> None:
        """Have the server send something."""
        self.send(_PING, _ignore)

    # The socket

    def read(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        while True:
            try:
                reply = reader.gets()
            except ReplyError as error:
                self.abort(f"protocol error: {error}")
                return
            if reply is _NOTHING:
                return
            try:
                if type(reply) is hiredis.PushNotification:
                    self.pushes += 1
                    if reply[0] in _MESSAGES:
                        self.on_message(reply[1], reply[2])
                    else:
                        self._on_confirmation(reply)
                elif self._is_silent and type(reply) is ReplyError and reply.kind == "BUSY":
                    self.abort(f"replies out of step: {reply}")
                    return
                elif self._handlers:
                    self.replies += 1
                    self._handlers.popleft()(reply)
                else:
                    self.abort("protocol error: a reply without a command")
                    return
            except Exception as error:  # noqa: BLE001 - replies must stay in step
                emit(_log, "redis.handler_failed", logging.ERROR, error)

    def lost(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        handlers, self._handlers = self._handlers, deque()
        if self._is_open and self.owner is not None:
            # First: what fails now is not to be sent on this link again.
            self.owner.link_lost(self, reason)
        lost = NotConnected(f"{self.server}: {reason}")
        for handler in handlers:
            try:
                handler(lost)
            except Exception as failure:  # noqa: BLE001 - all must be told
                emit(_log, "redis.handler_failed", logging.ERROR, failure)

    @property
    def is_lost(self) -> bool:
        """Whether the link has ended."""
        return self._is_lost

    def opened(self) -> None:
        """The login succeeded: watch the server from now on."""
        self._is_open = True
        self._keep_alive()

    def _keep_alive(self) -> None:
        """Look whether the server responds; a link that is idle is asked now and then only."""
        is_silent = self.in_bytes == self._checked_bytes
        if not is_silent:
            self._silent_intervals = self._quiet_intervals = 0
        elif self._handlers:
            self._quiet_intervals += 1
            if self._quiet_intervals >= _MAX_QUIET_INTERVALS:
                self.abort("no response to PING")
                return
        else:
            self._silent_intervals += 1
            if self._silent_intervals >= _IDLE_INTERVALS or self.out_bytes != self._checked_out:
                self._silent_intervals = 0
                self.ping()
        self._checked_bytes, self._checked_out = self.in_bytes, self.out_bytes
        self._timer = self._loop.call_later(self._ping_interval_s, self._keep_alive)


def _ignore(_reply: Reply) -> None:
    return None


class _Confirmation:
    """The handler of a command that is answered by a push, or by an error."""

    __slots__ = ("_handler", "channel", "kind")

    def __init__(self, kind: bytes, channel: bytes, handler: ReplyHandler) -> None:
        self.kind = kind
        self.channel = channel
        self._handler = handler

    def __call__(self, reply: Reply) -> None:
        self._handler(reply)


async def open_link(
    server: Server, options: RedisOptions, *, login: tuple[str, str] | None = None
) -> Link:
    """Connect, log in and load the scripts. Raises `RedisError` or ``OSError``.

    ``login`` replaces the one in ``options``, as for Sentinels.
    """
    loop = asyncio.get_running_loop()
    link = Link(server, options)
    context = (options.tls or ssl.create_default_context()) if server.tls else None
    try:
        async with silence_limit(options.connect_timeout_s):
            await loop.create_connection(
                lambda: link,
                server.host,
                server.port,
                ssl=context,
                server_hostname=server.host if context else None,
            )
            await _log_in(link, options, login or options.credentials(server))
    except TimeoutError as error:
        link.abort("timeout")
        raise NoResponse(f"no login within {options.connect_timeout_s} s") from error
    except BaseException:
        link.abort("not opened")
        raise
    link.opened()
    return link


async def _log_in(link: Link, options: RedisOptions, login: tuple[str, str]) -> None:
    user, password = login
    hello = [b"HELLO", b"3"]
    if user or password:
        # A user may be one without a password (nopass).
        hello += [b"AUTH", (user or "default").encode(), password.encode()]
    if options.name:
        hello += [b"SETNAME", options.name.encode()]
    try:
        await link.call(*hello)
    except ReplyError as error:
        if error.kind == "NOAUTH":
            # Its own words explain the protocol.
            raise LoginRefused("NOAUTH the server wants a password") from error
        raise LoginRefused(str(error)) if error.kind in REFUSED else error from error
    facts = await link.call(b"INFO", b"server", b"replication")
    found = dict(line.split(b":", 1) for line in bytes(facts).split(b"\r\n") if b":" in line[:64])
    link.version = (found.get(b"valkey_version") or found.get(b"redis_version") or b"").decode()
    if is_too_old(link.version):
        raise RedisError(f"version {link.version}: Redis 7 or Valkey 8 at least is needed")
    link.run = found.get(b"run_id", b"")[:16]
    mode = found.get(b"redis_mode") or found.get(b"server_mode") or b""
    link.is_cluster = mode == b"cluster"
    link.is_sentinel = mode == b"sentinel"
    link.is_master = found.get(b"role") == b"master"
    for name in options.scripts:
        await link.call(b"SCRIPT", b"LOAD", script(name).text)


def is_too_old(version: str) -> bool:
    """Whether a server lacks what we need: sharded messages, and flags of scripts (Redis 7.0)."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) < 7
