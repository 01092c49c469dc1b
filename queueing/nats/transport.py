"""One socket to one nats-server: login and keep-alive, on a `queueing.batched_socket`."""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, Protocol

import orjson

from queueing.batched_socket import BatchedSocket
from queueing.nats.login import ConnectionOptions
from queueing.nats.protocol import (
    PING,
    PONG,
    MessageHandler,
    Parser,
    ProtocolError,
    encode_connect,
    is_login_refused,
)
from queueing.servers import Server
from runtime.events import emit
from runtime.timeouts import silence_limit

_MAX_QUIET_INTERVALS = 2
_log = logging.getLogger("queueing.nats.transport")


class Traffic(NamedTuple):
    """Bytes and messages carried. Frames out are messages, subscriptions, acknowledgements."""

    in_bytes: int = 0
    out_bytes: int = 0
    in_messages: int = 0
    out_frames: int = 0

    def plus(self, other: "Traffic") -> "Traffic":
        """Return the sums."""
        return Traffic(*(a + b for a, b in zip(self, other, strict=True)))


class LinkError(Exception):
    """The server cannot be reached, refuses the login, or closed the connection."""


class LinkRefused(LinkError):
    """The server does not accept the login."""


class LinkOwner(Protocol):
    """What a link reports to (`queueing.nats.connection.NatsConnection`)."""

    def link_info(self, link: "Link") -> None:
        """``link.info`` has changed."""

    def link_refused(self, link: "Link", text: str) -> None:
        """The server sent ``-ERR``."""

    def link_failed(self) -> None:
        """This client failed: a handler raised, or the link is closed because of an error."""

    def link_lost(self, link: "Link", reason: str) -> None:
        """The link has ended. Called once, and only for a link that had been opened."""


def _our_version() -> str:
    try:
        return version("invocation-gateway")
    except PackageNotFoundError:
        return "0"


class Link(BatchedSocket):
    """A socket that speaks NATS. Made by `open_link`."""

    def __init__(
        self, owner: LinkOwner, handlers: dict[bytes, MessageHandler], options: ConnectionOptions
    ) -> None:
        super().__init__(options.buffer_bytes)
        self._owner = owner
        self._parser = Parser(self, handlers)
        self._ping_interval_s = options.ping_interval_s
        self._is_held = self._is_open = False
        self._hello: asyncio.Future[None] = self._loop.create_future()
        self._pongs: deque[Callable[[], None]] = deque()
        self._held_pings: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._checked_bytes = 0
        self._quiet_intervals = 0
        self.info: dict[str, Any] = {}

    def traffic(self) -> Traffic:
        """Return what this link has carried."""
        return Traffic(self.in_bytes, self.out_bytes, self._parser.messages, self.out_frames)

    # Sending

    send = BatchedSocket.send_frame

    def ping(self, done: Callable[[], None]) -> None:
        """Call ``done`` when the server has processed all frames, or when the link is lost.

        While frames are held it is held too: see `take_held_pings`.
        """
        if self._is_lost:
            done()
            return
        if self._is_held:
            self._held_pings.append(done)
            return
        self._pongs.append(done)
        self._out.append(PING)
        self._out_bytes += len(PING)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_soon(self._flush)

    def hold(self) -> None:
        """Keep all frames from now on; `take_held` returns them."""
        self._flush()
        self._is_held = True

    def send_while_held(self, frames: bytes, done: Callable[[], None]) -> None:
        """Send frames before those that are held, followed by a `ping`."""
        if self._is_lost:
            # uvloop raises for a write then, and the caller's task would end with it.
            done()
            return
        self._pongs.append(done)
        if self._transport is not None:
            self._transport.write(frames + PING)

    def take_held(self) -> list[bytes]:
        """Return the frames that were held and empty the buffer."""
        held, self._out = self._out, []
        self._out_bytes = 0
        return held

    def take_held_pings(self) -> list[Callable[[], None]]:
        """Return the callbacks of pings that were held, and forget them."""
        held, self._held_pings = self._held_pings, []
        return held

    def _flush_now(self) -> None:
        if not self._is_held:
            super()._flush_now()

    # The socket

    def read(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except ProtocolError as error:
            self.abort(f"protocol error: {error}")

    def lost(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fail_hello(reason)
        pongs, self._pongs = self._pongs, deque()
        for done in (*pongs, *self.take_held_pings()):
            done()
        if self._is_open:
            self._owner.link_lost(self, reason)

    def abort(self, reason: str) -> None:
        """End now."""
        if self._is_open:
            self._owner.link_failed()
        super().abort(reason)

    # Control, called by the parser

    def on_ping(self) -> None:
        """Respond at once, also while frames are held."""
        if self._transport is not None:
            self._transport.write(PONG)

    def on_pong(self) -> None:
        if self._pongs:
            self._pongs.popleft()()

    def on_error(self, text: str) -> None:
        if not self._hello.done():
            self._reason = self._reason or text
        if self._is_open:
            self._owner.link_refused(self, text)
        else:
            self._fail_hello(text, LinkRefused if is_login_refused(text) else LinkError)

    def on_handler_failed(self, error: Exception) -> None:
        self._owner.link_failed()
        emit(_log, "nats.handler_failed", logging.ERROR, error)

    # Login

    async def expect_info(self) -> None:
        """Return when the server has sent INFO. Raises `LinkError`."""
        await self._hello

    def on_info(self, document: bytes) -> None:
        """Store the server's INFO."""
        try:
            info = orjson.loads(document)
        except orjson.JSONDecodeError:
            self.abort("INFO is not JSON")
            return
        # A later INFO contains only what has changed.
        self.info = {**self.info, **info}
        if not self._hello.done():
            self._hello.set_result(None)
        elif self._is_open:
            self._owner.link_info(self)

    async def log_in(self, fields: dict[str, str], name: str) -> None:
        """Send CONNECT and wait until the server has accepted it. Raises `LinkError`."""
        document = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "lang": "python",
            "version": _our_version(),
            "protocol": 1,
            "name": name,
            **fields,
        }
        self._hello = self._loop.create_future()
        self.send(encode_connect(orjson.dumps(document)))
        self.ping(self._on_accepted)
        await self._hello
        self._is_open = True
        self._keep_alive()

    def _on_accepted(self) -> None:
        if not self._hello.done():
            self._hello.set_result(None)

    def _fail_hello(self, reason: str, kind: type[LinkError] = LinkError) -> None:
        if not self._hello.done():
            self._hello.set_exception(kind(reason))
            # Mark it as read: after a timeout of the connect, nothing awaits it.
            self._hello.exception()

    def _keep_alive(self) -> None:
        is_quiet = bool(self._pongs) and self.in_bytes == self._checked_bytes
        self._quiet_intervals = self._quiet_intervals + 1 if is_quiet else 0
        if self._quiet_intervals >= _MAX_QUIET_INTERVALS:
            self.abort("no response to PING")
            return
        self._checked_bytes = self.in_bytes
        if not self._is_held:
            self.ping(_nothing)
        self._timer = self._loop.call_later(self._ping_interval_s, self._keep_alive)


def _nothing() -> None:
    return None


async def open_link(
    server: Server,
    owner: LinkOwner,
    handlers: dict[bytes, MessageHandler],
    options: ConnectionOptions,
) -> Link:
    """Connect and log in.

    Raises `LinkError`, of which `LinkRefused` is one, `LoginError` or OSError.
    """
    loop = asyncio.get_running_loop()
    link = Link(owner, handlers, options)
    context = options.tls or (ssl.create_default_context() if server.tls else None)
    try:
        async with silence_limit(options.connect_timeout_s):
            transport, _ = await loop.create_connection(
                lambda: link,
                server.host,
                server.port,
                ssl=context if options.tls_first else None,
                server_hostname=server.host if options.tls_first and context else None,
            )
            await link.expect_info()
            if not options.tls_first and (server.tls or link.info.get("tls_required")):
                secured = await loop.start_tls(
                    transport,
                    link,
                    context or ssl.create_default_context(),
                    server_hostname=server.host,
                )
                if secured is not None:
                    link.secured(secured)
            fields = options.login.fields(server, link.info.get("nonce", ""))
            await link.log_in(fields, options.name)
    except TimeoutError as error:
        link.abort("timeout")
        raise LinkError(f"no login within {options.connect_timeout_s} s") from error
    except BaseException:
        link.abort("not opened")
        raise
    return link
