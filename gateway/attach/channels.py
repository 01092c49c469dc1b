"""The channels of the workers of this process: free slots, calls, responses (`docs/wire.md` §20).

A call is sent over a channel whose worker has told of a free slot. The worker runs it, hands it
back, or is lost: then the invocation publishes it to the queue. A channel whose connection breaks
keeps its calls for `GRACE_S`: the worker opens it again, with the key that it got at first, and
names the calls that it still has. What it does not name is lost. A worker that comes later finds
the channel without its calls, and is told to stop them.

Pure but for its clock. What a channel is given, the bytes on the wire, is `http1.framed`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from hmac import compare_digest
from typing import Protocol

from gateway.attach.faults import FAULTS as OUTCOMES
from gateway.errors import TooManyChannels, Unauthenticated
from gateway.invocation.headers import encoded_head
from gateway.invocation.machine import Invocation
from gateway.invocation.states import DONE, PENDING, QUEUED, Outcome
from http1.stream import NO_TRAILERS, EncodedHead, Headers
from wire.channel import (
    REQUEST_ID_BYTES,
    FrameError,
    FrameLink,
    FrameUser,
    Kind,
    Reason,
    channel_token,
    decode_count,
    decode_reason,
    decode_request_id,
    decode_response,
    decode_running,
    encode_call,
    encode_count,
    encode_frame,
)
from wire.headers import forwardable_trailers
from wire.http1 import HeadError, InnerHead, parse_inner_head, parse_trailers
from wire.repeated import Repeated

GRACE_S = 2.0
"""So long after its connection broke a channel keeps its calls."""
FORGET_S = 10.0
"""And so long it can be opened again: responses that may be lost are sent once more then."""
SILENT_S = 2.0
"""A worker that has calls and responds to none for so long is asked for a sign of life."""
MAX_SILENT = 3
"""After so many such times without any sign it counts as lost."""
MAX_CHANNELS = 16_384
FIND_EVERY = 16
"""With workers that have no channel, every so many calls go through the queue all the same."""
TOKEN_EVERY = 8
"""With channels to workers of a version, every so many requests have the token for another one."""
_MAX_KEPT_TRAILERS = 64
_MAX_KEPT_TRAILERS_BYTES = 256
_MAX_USED = 65_536
"""So many used tokens are remembered; the oldest one could be used again then."""


_SIGNS = frozenset({Kind.RESPONSE, Kind.BUSY, Kind.RUNNING, Kind.PONG})
"""Frames that show that what was sent to the worker arrives there."""


class WorkerChannel:
    """One worker's channel.

    A `gateway.invocation.context.CallChannel` and a `wire.channel.FrameUser`.

    ``limit`` is how many calls the worker takes in all, ``sent`` how many were sent; ``calls`` are
    those that have no response yet. ``responses`` counts the responses that came, ``confirmed``
    those of them that the worker was told of. ``lost_at`` is when the connection broke, 0 while
    there is one. ``has_heard``: the worker has shown lately that it gets what it is sent;
    ``silent`` counts the times that it was found not to have. ``slots`` are the most calls that it
    was known to take at a time.
    """

    __slots__ = (
        "_channels",
        "_owes_confirm",
        "calls",
        "confirmed",
        "has_heard",
        "instance",
        "is_listed",
        "is_ready",
        "key",
        "limit",
        "link",
        "lost_at",
        "responses",
        "sent",
        "silent",
        "slots",
        "version_id",
    )

    def __init__(
        self, channels: "WorkerChannels", version_id: str, instance: bytes, key: str
    ) -> None:
        self._channels = channels
        self.version_id = version_id
        self.instance = instance
        self.key = key
        self.link: FrameLink | None = None
        self.calls: dict[int, Invocation] = {}
        self.limit = self.sent = self.responses = self.confirmed = self.silent = self.slots = 0
        self.is_ready = self.has_heard = self.is_listed = self._owes_confirm = False
        self.lost_at = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.version_id} sent={self.sent} limit={self.limit}>"

    def confirm(self) -> int:
        """Return how many responses have come; the worker is told of them now."""
        self._owes_confirm = False
        self.confirmed = self.responses
        return self.responses

    # The invocation

    def cancel(self, number: int) -> None:
        """Tell the worker that nobody waits for a call, and forget it."""
        if self.calls.pop(number, None) is not None and self.link is not None:
            self.link.send(encode_frame(Kind.CANCEL, number))

    def forget(self, number: int) -> None:
        """The response to a call has begun, by POST attach: the channel has no part in it."""
        call = self.calls.pop(number, None)
        if call is not None:
            self._channels.responding.append(call)

    # The worker

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        """Take one frame. Raises `FrameError`."""
        if kind in _SIGNS:
            self.has_heard = True
        if kind == Kind.RESPONSE:
            self._count()
            call = self.calls.pop(number, None)
            if call is not None:
                self._channels.respond(self, call, payload)
        elif kind == Kind.SLOTS:
            self.limit = decode_count(payload)
            self._channels.offered(self)
        elif kind == Kind.QUEUED_RESPONSE:
            self._count_queued()
            call = self._channels.queued(self, decode_request_id(payload))
            if call is not None:
                self._channels.respond(self, call, payload[REQUEST_ID_BYTES:])
        elif kind == Kind.BUSY:
            reason = decode_reason(payload)
            self._channels.count_busy(reason)
            self._give_back(number, reason)
        elif kind == Kind.LEASED:
            self._channels.leased(self, decode_request_id(payload))
        elif kind == Kind.RUNNING:
            self._compare(decode_running(payload), number)

    def last_frame(self) -> bytes:
        """Confirm the responses to requests of the queue, unless a call has done so."""
        if not self._owes_confirm:
            return b""
        return encode_count(Kind.CONFIRM, self.confirm())

    def link_lost(self, link: object) -> None:
        """A connection is over; it may be one that was replaced."""
        if link is self.link:
            self._channels.link_lost(self)

    def _count(self) -> None:
        if not self.is_listed:
            self.is_listed = True
            self._channels.unconfirmed.append(self)
        self.responses += 1

    def _count_queued(self) -> None:
        self.responses += 1
        if not self._owes_confirm and self.link is not None:
            # In this turn: the worker keeps the lease until then.
            self._owes_confirm = True
            self.link.send_last()

    def _compare(self, running: set[int], last_number: int) -> None:
        """Give back what the worker has not, and stop what nobody waits for any more.

        The last call that has arrived there is ``last_number``.
        """
        for lost in [one for one in self.calls if one not in running]:
            # What was on its way when the connection broke was never delivered.
            self._give_back(lost, Reason.LOST if lost <= last_number else Reason.HANDED_BACK)
        if self.link is not None:
            for unwanted in running - self.calls.keys():
                self.link.send(encode_frame(Kind.CANCEL, unwanted))

    def _give_back(self, number: int, reason: Reason) -> None:
        call = self.calls.pop(number, None)
        if call is None:
            return
        if reason is Reason.LATE:
            call.dropped_late(1)
        else:
            call.handed_back(
                was_run=reason is Reason.LOST, was_sent=reason is not Reason.HANDED_BACK
            )

    def lose_calls(self) -> None:
        """The worker is lost, and with it every call that it had."""
        for number in list(self.calls):
            self._give_back(number, Reason.LOST)


class _Lane:
    """The channels of one version; ``ready`` are those with a free slot, in turn.

    ``slots`` are all slots of their workers, as far as they have told of them. ``turn`` counts
    calls while there are workers without a channel.
    """

    __slots__ = ("channels", "ready", "slots", "turn")

    def __init__(self) -> None:
        self.slots = self.turn = 0
        self.channels: set[WorkerChannel] = set()
        self.ready: deque[WorkerChannel] = deque()


class ChannelQueue(Protocol):
    """What of the queue the channels report to."""

    def leased(self, request_id: str) -> None:
        """A worker says that it has leased the request."""


class WorkerChannels:
    """All channels of one process; a `gateway.invocation.context.DirectDispatch`.

    ``live`` are the live invocations by request id. ``direct``, ``busy`` and ``late`` count calls:
    sent, handed back, and dropped as late; ``links_lost`` connections that broke. ``responding``
    are calls whose responses come by POST attach, and perhaps some that are over.
    """

    def __init__(
        self,
        live: dict[str, Invocation],
        queue: ChannelQueue,
        clock: Callable[[], float],
        secret: bytes,
        new_key: Callable[[], str],
        new_link: Callable[[FrameUser], FrameLink],
    ) -> None:
        """``secret`` is that of `wire.channel.channel_token`, ``new_key`` makes a random key.

        ``new_link`` makes the protocol that carries the frames of its user.
        """
        self._live = live
        self._queue = queue
        self._clock = clock
        self._secret = secret
        self._new_key = new_key
        self.new_link = new_link
        self._lanes: dict[str, _Lane] = {}
        self._by_key: dict[str, WorkerChannel] = {}
        self._used: dict[str, None] = {}
        self._heads: Repeated[tuple[InnerHead, EncodedHead | None]] = Repeated()
        self._trailers: dict[bytes, Headers] = {b"": NO_TRAILERS}
        self._untokened = 0
        self._lost: list[WorkerChannel] = []
        self.unconfirmed: list[WorkerChannel] = []
        self.responding: list[Invocation] = []
        self._looked_at = clock()
        self.direct = self.busy = self.late = self.links_lost = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def running(self) -> dict[str, int]:
        """Return how many calls workers have over channels until they are over, by version."""
        counts: dict[str, int] = {}
        for channel in self._by_key.values():
            if channel.calls:
                version_id = channel.version_id
                counts[version_id] = counts.get(version_id, 0) + len(channel.calls)
        for call in self.responding:
            if call.state is not DONE:
                version_id = call.version.version_id
                counts[version_id] = counts.get(version_id, 0) + 1
        return counts

    def slots(self) -> Iterator[tuple[str, int]]:
        """Yield the free slots of which workers have told, by version."""
        for version_id, lane in self._lanes.items():
            yield version_id, sum(max(one.limit - one.sent, 0) for one in lane.ready)

    # The invocation

    def has_free(self, version_id: str, capacity: int) -> bool:
        """Return whether a worker of the version has told of a free slot.

        Now and then not, if workers are known to be there that have no channel: a call that goes
        through the queue may reach one of them, with the token for a channel.
        """
        lane = self._lanes.get(version_id)
        if lane is None or not lane.ready:
            return False
        if lane.slots >= capacity:
            return True
        lane.turn += 1
        if lane.turn % FIND_EVERY:
            return True
        self._untokened = TOKEN_EVERY
        return False

    def send(
        self,
        call: Invocation,
        version_id: str,
        requested_at_ns: int,
        head: bytes,
        body: bytes,
        *,
        has_rest: bool,
    ) -> WorkerChannel | None:
        """Send a call to the worker whose turn it is."""
        ready = self._lanes[version_id].ready
        for _ in range(len(ready)):
            channel = ready[0]
            link = channel.link
            if link is None or link.is_writing_paused or channel.sent >= channel.limit:
                ready.popleft()
                channel.is_ready = False
                continue
            number = channel.sent + 1
            frame = encode_call(
                number,
                call.request_id.encode(),
                requested_at_ns,
                head,
                body,
                has_rest=has_rest,
                confirmed=channel.responses,
            )
            if frame is None:
                return None
            channel.sent = number
            channel.confirm()
            channel.calls[number] = call
            if number >= channel.limit:
                ready.popleft()
                channel.is_ready = False
            elif len(ready) > 1:
                ready.rotate(-1)
            link.send(frame)
            self.direct += 1
            return channel
        return None

    def token(self, request_id: str, version_id: str) -> str:
        """Return what lets the worker that leases the request open a channel.

        Not for each request while there are channels: a new worker gets one soon enough.
        """
        self._untokened += 1
        if self._untokened < TOKEN_EVERY and version_id in self._lanes:
            return ""
        self._untokened = 0
        return channel_token(self._secret, request_id, version_id)

    # Opening

    def open(self, request_id: str, version_id: str, token: str, instance: bytes) -> WorkerChannel:
        """Return a new channel. Raises `Unauthenticated` and `TooManyChannels`."""
        expected = channel_token(self._secret, request_id, version_id)
        if not compare_digest(expected.encode(), token.encode()) or request_id in self._used:
            raise Unauthenticated(_STALE)
        if len(self._by_key) >= MAX_CHANNELS:
            raise TooManyChannels
        if len(self._used) >= _MAX_USED:
            del self._used[next(iter(self._used))]
        self._used[request_id] = None
        key = self._new_key()
        channel = WorkerChannel(self, version_id, instance, key)
        self._by_key[key] = channel
        self._lane(version_id).channels.add(channel)
        call = self.queued(channel, request_id)
        if call is not None:
            call.leased(instance, self._clock())
        return channel

    def resume(self, key: str) -> WorkerChannel:
        """Return the channel that a worker opens again. Raises `Unauthenticated`."""
        channel = self._by_key.get(key)
        if channel is None:
            raise Unauthenticated(_STALE)
        if channel.link is not None:
            # The worker has noticed the end of the old connection first.
            link, channel.link = channel.link, None
            link.abort()
        channel.limit = channel.sent
        channel.confirm()
        return channel

    def linked(self, channel: WorkerChannel, link: FrameLink, *, is_resumed: bool) -> None:
        """The connection of a channel is there."""
        channel.link = link
        channel.lost_at = 0.0
        channel.silent = 0
        if is_resumed:
            link.send(encode_count(Kind.CONFIRM, channel.responses, channel.sent))

    def call_of(self, key: str, number: int) -> Invocation | None:
        """Return the call for which a worker comes with the key of its channel."""
        channel = self._by_key.get(key)
        return None if channel is None else channel.calls.get(number)

    # The worker

    def offered(self, channel: WorkerChannel) -> None:
        """The number of calls that a channel takes has changed."""
        slots = channel.limit - channel.sent + len(channel.calls)
        if slots > channel.slots:
            self._lane(channel.version_id).slots += slots - channel.slots
            channel.slots = slots
        if channel.limit > channel.sent and not channel.is_ready:
            channel.is_ready = True
            self._lane(channel.version_id).ready.append(channel)

    def queued(self, channel: WorkerChannel, request_id: str) -> Invocation | None:
        """Return a queued request of the channel's version."""
        call = self._live.get(request_id)
        if call is None or call.version.version_id != channel.version_id:
            return None
        return call

    def leased(self, channel: WorkerChannel, request_id: str) -> None:
        """The worker has leased a request from the queue."""
        call = self.queued(channel, request_id)
        if call is not None:
            call.leased(channel.instance, self._clock())
            self._queue.leased(request_id)

    def respond(self, channel: WorkerChannel, call: Invocation, payload: bytes) -> None:
        """Deliver a response. Raises `FrameError`."""
        try:
            fault, worker_s, response, lines = decode_response(payload)
            trailers = self._trailers.get(lines)
            if trailers is None:
                trailers = self._read_trailers(lines)
            end = response.find(b"\r\n\r\n") + 4
            block = response[:end]
            head, encoded = self._heads.known.get(block) or self._read_head(block)
        except (FrameError, HeadError) as error:
            if call.state is QUEUED or call.state is PENDING:
                call.undeliverable()
            else:
                call.handed_back(was_run=True, was_sent=True)
            raise FrameError(str(error)) from error
        call.responded(
            head,
            encoded,
            response[end:],
            self._clock(),
            worker_s,
            channel.instance,
            OUTCOMES[fault] if fault else Outcome.ANSWERED,
            trailers,
        )

    def _read_trailers(self, lines: bytes) -> Headers:
        """Parse trailers, and keep them: most of gRPC are the same. Raises `HeadError`."""
        trailers = forwardable_trailers(parse_trailers(lines))
        if len(lines) <= _MAX_KEPT_TRAILERS_BYTES:
            if len(self._trailers) >= _MAX_KEPT_TRAILERS:
                self._trailers.clear()
            self._trailers[lines] = trailers
        return trailers

    def _read_head(self, block: bytes) -> tuple[InnerHead, EncodedHead | None]:
        """Parse a head, and keep it if it came before. Raises `HeadError`."""
        parsed = parse_inner_head(block)
        if parsed is None or parsed[0].status < 200:
            raise HeadError("A response has no head")
        head = parsed[0]
        if not self._heads.has_come(block):
            return head, None
        known = head, encoded_head(head)
        self._heads.keep(block, known)
        return known

    def count_busy(self, reason: Reason) -> None:
        """Count a call that a worker does not begin."""
        if reason is Reason.LATE:
            self.late += 1
        elif reason is Reason.HANDED_BACK:
            self.busy += 1

    def link_lost(self, channel: WorkerChannel) -> None:
        """The connection of a channel is over."""
        channel.link = None
        channel.limit = 0
        if channel.key in self._by_key:
            self.links_lost += 1
            if not channel.lost_at:
                channel.lost_at = self._clock()
            self._lost.append(channel)

    # Time

    def tick(self) -> None:
        """Confirm responses, and look after workers; to be called about ten times per second."""
        unconfirmed, self.unconfirmed = self.unconfirmed, []
        for channel in unconfirmed:
            channel.is_listed = False
            if channel.link is not None and channel.responses != channel.confirmed:
                channel.link.send(encode_count(Kind.CONFIRM, channel.confirm()))
        if self.responding:
            self.responding = [call for call in self.responding if call.state is not DONE]
        now = self._clock()
        if self._lost:
            self._end_lost(now)
        if now - self._looked_at >= SILENT_S:
            self._looked_at = now
            for channel in list(self._by_key.values()):
                self._look_after(channel)

    def close(self) -> None:
        """Close every channel: the process stops."""
        for channel in list(self._by_key.values()):
            if channel.link is not None:
                channel.link.close()
            self._remove(channel)

    def _end_lost(self, now: float) -> None:
        lost, self._lost = self._lost, []
        for channel in lost:
            if not channel.lost_at:
                continue
            lost_s = now - channel.lost_at
            if lost_s >= GRACE_S:
                channel.lose_calls()
            if lost_s < FORGET_S:
                self._lost.append(channel)
            else:
                self._remove(channel)

    def _look_after(self, channel: WorkerChannel) -> None:
        if channel.has_heard or not channel.calls or channel.link is None:
            channel.has_heard = False
            channel.silent = 0
            return
        channel.silent += 1
        if channel.silent >= MAX_SILENT:
            channel.link.abort()
        else:
            channel.link.send(encode_frame(Kind.PING, 0))

    def _lane(self, version_id: str) -> _Lane:
        lane = self._lanes.get(version_id)
        if lane is None:
            lane = self._lanes[version_id] = _Lane()
        return lane

    def _remove(self, channel: WorkerChannel) -> None:
        self._by_key.pop(channel.key, None)
        lane = self._lanes.get(channel.version_id)
        if lane is None:
            return
        if channel in lane.channels:
            lane.channels.remove(channel)
            lane.slots -= channel.slots
        if channel.is_ready:
            lane.ready.remove(channel)
            channel.is_ready = False
        if not lane.channels:
            del self._lanes[channel.version_id]


_STALE = "The provided channel token or key is invalid or has expired"
