"""The channels to gateway processes: opened, opened again after a break, closed when idle.

A channel is opened when the first envelope of a gateway process arrives by the queue: it carries
the token for it. So no process has to be found, and channels are there exactly between pairs that
have traffic.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, cast

from http1.client.response_head import DefectError, read_head
from http1.framed import FramedConnection
from http1.peer import keep_alive
from runtime.events import emit
from runtime.tasks import spawn
from runtime.timeouts import silence_limit
from wire.channel import PROTOCOL
from wire.decoded_envelope import Envelope
from wire.headers import (
    FUNCTION_VERSION_ID,
    NVCF_CHANNEL_KEY,
    NVCF_INSTANCE_ID,
    NVCF_REQID,
)
from wire.worker_api import CHANNEL_PATH
from worker_agent.attach.channel import AgentChannel, Calls

IDLE_S = 300.0
"""A channel that carries nothing for so long is closed."""
RESUME_S = 5.0
"""So long is tried to open a channel again. Its gateway process gives its calls up before, and
keeps the channel for longer."""
_RESUME_DELAYS_S = (0.0, 0.1, 0.2, 0.4, 0.8)
_FIRST_RETRY_S = 1.0
_MAX_RETRY_S = 60.0
_MAX_HEAD_BYTES = 16_384

_log = logging.getLogger("worker.channel")

Connect = Callable[[bytes, Callable[[], asyncio.Protocol]], Awaitable[object]]
"""Opens a connection to the gateway process at an address, with a protocol."""


class ChannelRefused(OSError):
    """The gateway process does not open the channel; 0: its response is no HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with status {status}")


class ChannelOwner(Calls, Protocol):
    """Takes the calls of all channels, and hears when a gateway process has given up its calls."""

    def given_up(self, request_ids: list[str]) -> None:
        """The gateway process is gone, or has given these calls to other workers."""


class AgentChannels:
    """All channels of this agent, by the address of the gateway process.

    ``links_lost`` counts connections that broke.
    """

    def __init__(
        self,
        version_id: str,
        instance_id: str,
        connect: Connect,
        *,
        connect_timeout_s: float,
        vanished_s: float,
    ) -> None:
        self._version_id = version_id.encode()
        self._instance_id = instance_id.encode()
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._vanished_s = vanished_s
        self._loop = asyncio.get_running_loop()
        self._owner: ChannelOwner | None = None
        self._open: dict[bytes, AgentChannel] = {}
        self._opening: set[bytes] = set()
        self._retry: dict[bytes, tuple[float, float]] = {}
        self._is_closed = False
        self.links_lost = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[AgentChannel]:
        return iter(self._open.values())

    def start(self, owner: ChannelOwner) -> None:
        """Let ``owner`` take the calls from now on."""
        self._owner = owner

    def to(self, uri: bytes) -> AgentChannel | None:
        """Return the channel to a gateway process."""
        return self._open.get(uri)

    def hear_of(self, envelope: Envelope) -> None:
        """Open a channel to the gateway process of an envelope, unless there is one."""
        uri = envelope.target_uri
        if uri in self._open or uri in self._opening or self._owner is None or self._is_closed:
            return
        retry = self._retry.get(uri)
        if retry is not None and self._loop.time() < retry[0]:
            return
        self._opening.add(uri)
        channel = AgentChannel(uri, self._owner, self._link_lost)
        headers = b"%b: %b\r\n%b: %b\r\n" % (
            NVCF_REQID,
            envelope.request_id.encode(),
            FUNCTION_VERSION_ID,
            self._version_id,
        )
        spawn(self._open_first(channel, envelope.channel_token, headers), "channel.open")

    def offer_changed(self, offered: int) -> None:
        """The number of further calls that this agent takes has changed."""
        for channel in self._open.values():
            channel.offer_changed(offered)

    def sweep(self) -> None:
        """Close what is idle, and tell slots that were not told; to be called once a second."""
        now = self._loop.time()
        offered = 0 if self._owner is None else self._owner.offered()
        for uri, channel in list(self._open.items()):
            channel.tell(offered)
            if channel.is_in_use():
                channel.used_at = now
                if channel.silent_s(now) > self._vanished_s and channel.link is not None:
                    channel.link.abort()
            elif now - channel.used_at > IDLE_S:
                del self._open[uri]
                self._close(channel)
        for uri, (at, _) in list(self._retry.items()):
            if now - at > _MAX_RETRY_S:
                del self._retry[uri]

    def renew(self) -> None:
        """Open every channel again: this process stood still, and what it was sent may be old."""
        for channel in list(self._open.values()):
            if channel.link is not None:
                channel.link.abort()

    def close(self) -> None:
        """Close every channel, after sending what was sent."""
        self._is_closed = True
        for channel in self._open.values():
            self._close(channel)
        self._open.clear()

    def _close(self, channel: AgentChannel) -> None:
        link, channel.link = channel.link, None
        if link is not None:
            link.close()

    async def _open_first(self, channel: AgentChannel, token: str, headers: bytes) -> None:
        uri = channel.uri
        try:
            await self._link(channel, token, headers, is_resumed=False)
        except OSError as error:
            _, delay_s = self._retry.get(uri, (0.0, _FIRST_RETRY_S / 2))
            delay_s = min(2 * delay_s, _MAX_RETRY_S)
            self._retry[uri] = (self._loop.time() + delay_s, delay_s)
            emit(_log, "channel.not_opened", gateway=uri.decode(), error=str(error))
        else:
            self._retry.pop(uri, None)
            channel.used_at = self._loop.time()
            self._open[uri] = channel
            if self._is_closed:
                self._close(channel)
            elif self._owner is not None:
                # What changed before it had its place here was not told.
                channel.tell(self._owner.offered())
        finally:
            self._opening.discard(uri)

    def _link_lost(self, channel: AgentChannel) -> None:
        self.links_lost += 1
        if self._is_closed:
            return
        # Also if nothing runs here: calls may have been on their way.
        spawn(self._open_again(channel), "channel.resume")

    async def _open_again(self, channel: AgentChannel) -> None:
        end = self._loop.time() + RESUME_S
        delays = iter(_RESUME_DELAYS_S)
        error: OSError | None = None
        while self._loop.time() < end and not self._is_closed:
            await asyncio.sleep(next(delays, _RESUME_DELAYS_S[-1]))
            try:
                await self._link(channel, channel.key, b"", is_resumed=True)
            except (ChannelRefused, ConnectionRefusedError) as refused:
                error = refused
                break
            except OSError as failed:
                error = failed
            else:
                return
        emit(
            _log,
            "channel.lost",
            logging.WARNING if channel.running else logging.INFO,
            gateway=channel.uri.decode(),
            running=len(channel.running),
            error=str(error),
        )
        if self._open.get(channel.uri) is channel:
            del self._open[channel.uri]
        running, jobs = channel.lose()
        if self._owner is not None:
            self._owner.given_up(running)
        for job in jobs:
            # The next way is POST attach.
            job.post_broken()

    async def _link(
        self, channel: AgentChannel, credential: str, headers: bytes, *, is_resumed: bool
    ) -> None:
        """Connect. Raises `OSError`."""
        authority = channel.uri.partition(b"://")[2].rstrip(b"/")
        if self._instance_id:
            headers += b"%b: %b\r\n" % (NVCF_INSTANCE_ID, self._instance_id)
        request = (
            b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: upgrade\r\nupgrade: %b\r\n"
            b"authorization: Bearer %b\r\n%b\r\n"
            % (CHANNEL_PATH, authority, PROTOCOL, credential.encode(), headers)
        )
        opening = _Opening(request, channel, self._loop, is_resumed=is_resumed)
        try:
            async with silence_limit(self._connect_timeout_s):
                await self._connect(channel.uri, lambda: opening)
                await opening.opened
        finally:
            opening.give_up()
        if opening.socket is not None:
            keep_alive(opening.socket, self._vanished_s)


class _Opening(asyncio.Protocol):
    """Sends the request, and lets a `FramedConnection` have the connection after the 101."""

    _transport: asyncio.Transport | None = None

    def __init__(
        self,
        request: bytes,
        channel: AgentChannel,
        loop: asyncio.AbstractEventLoop,
        *,
        is_resumed: bool,
    ) -> None:
        self._request = request
        self._channel = channel
        self._loop = loop
        self._is_resumed = is_resumed
        self._held = b""
        self._is_over = False
        self.opened: asyncio.Future[None] = loop.create_future()
        self.socket: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = opened = cast(asyncio.Transport, transport)
        if self._is_over:
            opened.abort()
            return
        self.socket = transport.get_extra_info("socket")
        opened.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            if len(self._held) > _MAX_HEAD_BYTES:
                self._fail(ChannelRefused(0))
            return
        try:
            head = read_head(self._held[:end])
        except DefectError as error:
            self._fail(OSError(str(error)))
            return
        key = dict(head.headers).get(NVCF_CHANNEL_KEY, b"")
        if head.status != 101 or not key:
            self._fail(ChannelRefused(head.status))
            return
        link = FramedConnection(self._channel, self._loop)
        transport = self._transport
        if transport is None or self._is_over:
            return
        transport.set_protocol(link)
        link.connection_made(transport)
        self._channel.linked(link, key.decode("latin-1"), is_resumed=self._is_resumed)
        if not self.opened.done():
            self.opened.set_result(None)
        rest = self._held[end + 4 :]
        if rest:
            link.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(OSError(str(exc or "the connection was closed")))

    def give_up(self) -> None:
        """Nobody waits any more: a channel that is not open yet is not opened."""
        if not self.opened.done() or self.opened.cancelled():
            self._is_over = True
            if self._transport is not None:
                self._transport.abort()

    def _fail(self, error: OSError) -> None:
        if self._transport is not None:
            self._transport.abort()
        if not self.opened.done():
            self.opened.set_exception(error)
