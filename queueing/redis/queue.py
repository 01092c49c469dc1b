"""The life of a queued request on Redis, in one gateway process.

A publish is one call of a script out and one number back. Nothing else is asked of the server in
the normal case.

A request has one of five states; `RedisQueue` makes all transitions:

    STALLED  waits until there is a link to the master and the queue has been looked at
             ──sent──▶ PENDING   ──the server has it from before──▶ HELD
    PENDING  published, not acknowledged
             ──acknowledged──▶ HELD   ──link lost, the server refuses for now──▶ STALLED
    HELD     in the queue or leased; ``sequence`` is its place
             ──server has lost it──▶ LOST
    LOST     the server has lost it; a worker that leased it before may still respond
             ──not leased before, or no worker says that it runs it──▶ STALLED
    ENDED    the publisher gets no further callback

Every state leads to ENDED: without a callback when it is answered, forgotten or withdrawn, with
``undeliverable`` after the last run (HELD), else with ``publish_failed``: refused, not acknowledged
in time (PENDING, STALLED), no response within a grace period (LOST), or the queue is closed.

A link that is lost says nothing about what was sent on it, and what lies in its socket may be
executed later. So each publish has a number, which names the connection too: the server knows which
ones it has executed, and refuses those of older connections. Publishes are sent in the order of
their numbers, whatever stalls. What the server had acknowledged may be gone as well, after a
failover or a restart: on every new link the process asks which of its requests are missing.

How often a request was run is counted by the server: the end of a lease without a word is a run, a
lease that was given back is none.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from secrets import token_hex
from time import time

from queueing.interface import (
    LineState,
    PublishCallbacks,
    QueueFull,
    QueueUnavailable,
    RunDecision,
)
from queueing.own_requests import (
    HELD,
    PENDING,
    STALLED,
    TICK_S,
    OwnRequest,
    OwnRequests,
    QueueLimits,
    VersionLine,
)
from queueing.publishes import PublishStatus
from queueing.redis.commands import bulk
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import OUT_OF_MEMORY, RedisError, ReplyError, is_denied
from queueing.redis.keys import Life, QueueKeys
from queueing.redis.link import Link, Reply
from runtime.events import emit
from runtime.ids import new_uuid
from runtime.metrics import CounterChild
from runtime.tasks import spawn
from runtime.timeouts import silence_limit

_CALL_S = 2.0
_log = logging.getLogger("queueing.redis.queue")
_MAX_ENVELOPE_BYTES = 8 << 20
_RETRY_S = 0.02
_MAX_UNCERTAIN = 10_000
_CHECKED_AT_ONCE = 500
_GONE = b"gone"
_STALE = b"stale"
_FULL = b"full"
_LEASED = b"leased"
_WAITS = b"waits"
_LIFE = b"life"


class PublishedRequest(OwnRequest):
    """One request of this process, and the handler of the reply to its publish.

    ``number`` orders the publishes of this process; ``runs`` is how often workers have run it
    without the queue.
    """

    __slots__ = ("number", "owner", "runs")

    queue: "VersionQueue"

    def __init__(
        self,
        owner: "RedisQueue",
        queue: "VersionQueue",
        request_id: str,
        callbacks: PublishCallbacks,
        envelope: bytes,
        runs: int,
    ) -> None:
        super().__init__(queue, request_id, callbacks, envelope, owner.now())
        self.owner = owner
        self.number = 0
        self.runs = runs

    def __call__(self, reply: Reply) -> None:
        """Handle the reply to the publish."""
        if type(reply) is int and self.state is PENDING:
            self.owner.acknowledged(self, reply)
        else:
            self.owner.replied(self, reply)


class VersionQueue(VersionLine[PublishedRequest]):
    """The requests of this process in the queue of one version.

    ``link`` is the link to the master that has the queue, `None` until the queue has been looked
    at on it. ``life`` identifies the queue, on one life of the server (`queueing.redis.keys`),
    empty until known. ``looked_at_ms`` is the server's time of the last look.
    """

    __slots__ = ("is_settling", "keys", "life", "link", "looked_at_ms", "publish_head")

    def __init__(self, keys: QueueKeys, stream: str, stored: CounterChild) -> None:
        super().__init__(keys.version_id, stream, stored)
        self.keys = keys
        self.link: Link | None = None
        self.is_settling = False
        self.life = b""
        self.publish_head = b""
        self.looked_at_ms = 0


class RedisQueue(OwnRequests[PublishedRequest, VersionQueue]):
    """A `queueing.interface.FunctionQueue`."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        region: str,
        lease_s: float = 30.0,
        limits: QueueLimits | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """``lease_s`` is the duration of leases of new queues."""
        super().__init__(region, limits or QueueLimits(), clock)
        self._connection = connection
        self._lease_ms = b"%d" % int(lease_s * 1000)
        # In the order of starts: servers forget the oldest.
        self._process = b"p-%012x-%b" % (int(time() * 1000), token_hex(6).encode())
        self._uncertain: deque[tuple[QueueKeys, str]] = deque(maxlen=_MAX_UNCERTAIN)
        self._published = 0
        self._connections = 1
        self.now = self._clock

    async def start(self) -> None:
        """Begin; the connection may be up or down."""
        self._connection.add_listener(self)
        self._ticker.start()

    async def close(self) -> None:
        """Fail all requests that are left; the connection stays open."""
        self._ticker.stop()
        self._connection.remove_listener(self)
        self._fail_all()

    # FunctionQueue

    def publish(
        self,
        version_id: str,
        request_id: str,
        envelope: bytes,
        callbacks: PublishCallbacks,
        trace: bytes,  # noqa: ARG002 - of a message's headers, which Redis has not
        *,
        runs: int = 0,
    ) -> None:
        """Send the envelope. A failure is reported later."""
        if runs and runs >= self._limits.max_runs > 0:
            self._call_soon(callbacks.undeliverable)
            return
        queue = self._begin(version_id, len(envelope), _MAX_ENVELOPE_BYTES, callbacks)
        if queue is None:
            return
        request = PublishedRequest(self, queue, request_id, callbacks, envelope, runs)
        self._add(request)
        self._send_or_stall(request)

    def _send_or_stall(self, request: PublishedRequest) -> bool:
        """To PENDING, or to STALLED behind others; return whether it was sent."""
        queue = request.queue
        if queue.stalled or queue.is_settling or not self._send(request):
            self._stall(request)
            return False
        return True

    def withdraw(self, version_id: str, request_id: str) -> None:
        """Remove the request, and send a cancel to the workers of the version."""
        self._withdraw(version_id, request_id, None)

    def _withdraw(
        self, version_id: str, request_id: str, handler: Callable[[Reply], None] | None
    ) -> bool:
        queue = self._queues.get(version_id) or self._open(version_id)
        if queue is None:
            return False
        request = self._requests.get(request_id)
        is_unsure = request is not None and request.is_unsure
        if request is not None:
            self._end(request)
        keys = queue.keys
        link = queue.link or self._connection.link(keys.slot)
        if link is None:
            self._uncertain.append((keys, request_id))
            return False
        frame = self._withdrawal(link, keys, request_id, is_unsure=is_unsure)
        handler = handler or partial(self._on_withdrawn, link, keys, request_id)
        if not link.send(frame, handler):
            self._uncertain.append((keys, request_id))
            return False
        return True

    def _on_withdrawn(self, link: Link, keys: QueueKeys, request_id: str, reply: Reply) -> None:
        """Withdraw again later what the server refused for now, or may not have read."""
        if isinstance(reply, RedisError) and (
            not isinstance(reply, ReplyError) or self._connection.note_error(link, reply)
        ):
            self._uncertain.append((keys, request_id))

    def _withdrawal(
        self, link: Link, keys: QueueKeys, request_id: str, *, is_unsure: bool
    ) -> bytes:
        connection = b"%07d" % self._connections if is_unsure else b""
        return keys.frame(link, "withdraw", request_id.encode(), self._process, connection)

    async def withdraw_expired(self, version_id: str, request_id: str) -> int | None:
        """Withdraw a request and return the position that it had. Raises `QueueUnavailable`."""
        request = self._requests.get(request_id)
        if request is None or request.state is not HELD:
            self.withdraw(version_id, request_id)
            return None
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def settle(result: Reply) -> None:
            if not reply.done():
                reply.set_result(result)

        if not self._withdraw(version_id, request_id, settle):
            raise QueueUnavailable("The queue's server cannot be reached")
        try:
            async with silence_limit(_CALL_S):
                position = await reply
        except TimeoutError as error:
            raise QueueUnavailable("The queue's server does not respond") from error
        if isinstance(position, RedisError):
            self._uncertain.append((request.queue.keys, request_id))
            raise QueueUnavailable(str(position)) from position
        return int(position)

    async def line(self, version_id: str) -> LineState:
        """Return what the server knows of the queue. Raises `QueueUnavailable`."""
        life, _, delivered, deliveries, waiting, leased = await self._call(version_id, "state")
        return LineState(Life.of(life).epoch.decode(), waiting, leased, deliveries, delivered)

    def may_run(self, request_id: str, deliveries: int) -> RunDecision:
        """Decide whether a worker may run a request about which it asks."""
        request = self._requests.get(request_id)
        if request is None:
            return RunDecision.NEVER
        if deliveries == 1 and self._limits.max_runs == 1 and self._was_begun(request):
            # The server has forgotten the lease in which it was run.
            self.withdraw(request.queue.keys.version_id, request_id)
            request.callbacks.undeliverable()
            return RunDecision.NEVER
        if request.state is not HELD:
            # It is not published again: that would be a second run.
            request.started_at = self._clock()
        return RunDecision.RUN

    def _was_begun(self, request: PublishedRequest) -> bool:
        """Whether a worker has leased it before, as far as this process knows."""
        return (
            request.is_begun()
            or request.is_leased
            or 0 < request.sequence <= request.queue.leased()
        )

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the position of a request of this process. Raises `QueueUnavailable`."""
        request = self._requests.get(request_id)
        if request is None or request.state is not HELD:
            return 0
        position = await self._call(version_id, "position", request_id.encode())
        assert isinstance(position, int)
        return position

    async def depth(self, version_id: str) -> int:
        """Return how many requests wait for a lease. Raises `QueueUnavailable`."""
        return (await self.line(version_id)).waiting

    async def _call(self, version_id: str, name: str, *words: bytes) -> Reply:
        queue = self._queues.get(version_id)
        keys = queue.keys if queue is not None else QueueKeys.of(self._region, version_id)
        try:
            return await self._connection.call(
                keys.slot, lambda link: keys.frame(link, name, *words), _CALL_S
            )
        except RedisError as error:
            raise QueueUnavailable(str(error)) from error

    # Transitions

    def _send(self, request: PublishedRequest) -> bool:
        """To PENDING; return False if it cannot be sent now."""
        queue = request.queue
        link = queue.link
        if link is None:
            return False
        number = request.number
        if not number:
            self._published += 1
            number = request.number = self._published
        envelope, token = request.envelope, request.request_id.encode()
        head = queue.publish_head
        if request.runs:
            head = self._publish_head(link, queue, request.runs)
        frame = b"%b$%d\r\n%b\r\n$16\r\n%07d%09d\r\n$%d\r\n%b\r\n" % (
            head,
            len(token),
            token,
            self._connections,
            number,
            len(envelope),
            envelope,
        )
        if request.runs:
            frame += bulk(b"%d" % request.runs)
        if not link.send(frame, request):
            return False
        request.state = PENDING
        return True

    def acknowledged(self, request: PublishedRequest, number: int) -> None:
        """PENDING to HELD: the server has stored the request, or a worker has it (below 0)."""
        queue = request.queue
        sequence = abs(number)
        is_leased = request.is_leased or number < 0
        queue.settle(request)
        if request.sequence == 0:
            queue.stored.value += 1
        self._keep_envelope(request)
        request.sequence = sequence
        request.state = HELD
        request.is_unsure = False
        queue.store(request, sequence, self._clock())
        if is_leased and sequence > queue.delivered:
            queue.delivered = sequence

    def replied(self, request: PublishedRequest, reply: Reply) -> None:
        """Handle any other reply to a publish than a number."""
        if request.state is not PENDING:
            return
        if isinstance(reply, list):
            self._decided(request, reply[0])
            return
        if isinstance(reply, ReplyError):
            link = request.queue.link
            if link is not None and self._connection.note_error(link, reply):
                # It was not executed, and later ones may have been.
                request.number = 0
                self._stall(request)
            elif reply.kind == OUT_OF_MEMORY:
                self._fail(request, QueueFull("The queue's server has no memory left"))
            elif is_denied(reply):
                emit(_log, "queue.denied", logging.ERROR, error=str(reply))
                denied = QueueUnavailable("The queue's server denies publishing")
                self._fail(request, denied, PublishStatus.DENIED)
            else:
                self._fail(request, QueueUnavailable(str(reply)))
        elif isinstance(reply, RedisError):
            # The link was lost after its slot had got another one.
            request.is_unsure = True
            self._stall(request)

    def _decided(self, request: PublishedRequest, word: bytes) -> None:
        """Handle what a server says in a word about a publish that it has not executed."""
        queue = request.queue
        if word == _FULL:
            self._fail(request, QueueFull("The queue holds as many requests as it may"))
        elif word == _LIFE:
            queue.link = None
            self._stall(request)
        elif word != _STALE:
            self._fail(request, QueueUnavailable("The queue's server answered in another way"))

    def _stall(self, request: PublishedRequest) -> None:
        """To STALLED: to be sent when the queue has been looked at."""
        request.state = STALLED
        queue = request.queue
        queue.stalled.append(request)
        self._settle_soon(queue)

    async def _send_stalled(self, link: Link, queue: VersionQueue) -> None:
        """STALLED to PENDING, in order. Raises `RedisError`."""
        stalled, queue.stalled = queue.stalled, []
        stalled.sort(key=lambda request: request.number or 1 << 62)
        for index, request in enumerate(stalled):
            if request.state is not STALLED:
                continue
            if request.started_at and not request.sequence:
                # It was stored, and a worker has it: only its acknowledgement was lost.
                queue.stored.value += 1
                self._lose_again(request)
                continue
            try:
                is_new = not request.is_unsure or await self._find(link, request)
            except RedisError:
                queue.stalled = stalled[index:] + queue.stalled
                raise
            if not is_new or request.state is not STALLED:
                continue
            if not self._send(request):
                # All that waited is sent at once, which may be more than the link takes.
                queue.stalled = stalled[index:] + queue.stalled
                return
            if request.sequence:
                request.republishes += 1
                self.republished += 1

    async def _find(self, link: Link, request: PublishedRequest) -> bool:
        """Find out what became of a publish; return whether it was not executed.

        Raises `RedisError`.
        """
        number = b"%07d%09d" % (self._connections, request.number)
        keys = request.queue.keys
        frame = keys.frame(link, "find", self._process, number, request.request_id.encode())
        word, *sequences = await link.call_frame(frame, _CALL_S)
        if request.state is not STALLED:
            return False
        request.is_unsure = False
        if word == _WAITS:
            self.acknowledged(request, sequences[0])
        elif word == _LEASED:
            self.acknowledged(request, -sequences[0])
        elif word == _GONE:
            # Its worker has removed it: the response is on its way.
            self._lose([request], was_leased=True)
        else:
            return True
        return False

    def _begin_life(self, queue: VersionQueue, life: bytes) -> None:
        """The server lives again, or the queue is another one: what the old one held is lost."""
        was, queue.life = queue.life, life
        self._set_head(queue)
        if was and Life.of(was).epoch != Life.of(life).epoch:
            queue.looked_at_ms = 0
            self._lose_all(queue)

    def _set_head(self, queue: VersionQueue) -> None:
        if queue.link is not None:
            queue.publish_head = self._publish_head(queue.link, queue, 0)

    def _publish_head(self, link: Link, queue: VersionQueue, runs: int) -> bytes:
        """Return the part of a publish that is the same for all requests."""
        life = Life.of(queue.life)
        words = (
            queue.life,
            self._process,
            b" %b %d\n" % (life.gen, runs),
            b"%d" % min(self._limits.max_waiting, 1 << 52),
            life.width,
        )
        count = 9 if runs else 8
        head = queue.keys.call("publish", count, is_cluster=link.is_cluster)
        return head + b"".join(map(bulk, words))

    def _lose_all(self, queue: VersionQueue) -> None:
        """HELD to LOST, for all of a queue."""
        leased = queue.leased()
        lost = queue.take_all()
        for request in lost:
            request.was_leased = request.sequence <= leased
            self._to_lost(request)
        self._tell_lost(queue, lost)

    def _lose(self, requests: list[PublishedRequest], *, was_leased: bool = False) -> None:
        """HELD or PENDING to LOST, for some requests of one queue."""
        queue = requests[0].queue
        leased = queue.leased()
        for request in requests:
            if request.state is HELD:
                request.was_leased = request.sequence <= leased
                queue.remove(request.sequence)
            else:
                queue.settle(request)
                self._keep_envelope(request)
                request.was_leased = was_leased
            self._to_lost(request)
        self._tell_lost(queue, requests)

    def _tell_lost(self, queue: VersionQueue, lost: list[PublishedRequest]) -> None:
        """Ask the workers which requests they run."""
        if lost:
            self._ask_workers(queue)

    def _ask_workers(self, queue: VersionQueue) -> None:
        if queue.link is not None:
            queue.link.send(queue.keys.frame(queue.link, "lose"), _ignore)

    def _send_again(self, request: PublishedRequest) -> None:
        request.number = 0
        request.is_unsure = False
        if self._send_or_stall(request):
            request.republishes += 1
            self.republished += 1

    def _may_run_again(self, request: PublishedRequest) -> bool:
        """As after a lease that ended without a word: what was on its way to a worker is lost."""
        request.runs += 1
        request.was_leased = False
        return not request.started_at and not 0 < self._limits.max_runs <= request.runs

    def _withdraw_later(self, request: PublishedRequest) -> None:
        self._withdraw_uncertain(request.queue.keys, request.request_id)

    # Links

    def link_up(self, link: Link) -> None:
        """Look at the queues that the server has, then send what stalled."""
        self._connected_at = self._clock()
        for queue in self._queues.values():
            if self._connection.link(queue.keys.slot) is link:
                self._settle_soon(queue)
        self._withdraw_all_uncertain(len(self._uncertain))

    def _withdraw_all_uncertain(self, most: int) -> None:
        for _ in range(min(most, len(self._uncertain))):
            self._withdraw_uncertain(*self._uncertain.popleft())

    def _withdraw_uncertain(self, keys: QueueKeys, request_id: str) -> None:
        """Withdraw a request that was given up and may be stored, at once or on the next link.

        The number of those that wait is bounded and the oldest are dropped: a worker that gets one
        of them is refused when it attaches.
        """
        link = self._connection.link(keys.slot)
        if link is None or not link.send(
            self._withdrawal(link, keys, request_id, is_unsure=True),
            partial(self._on_withdrawn, link, keys, request_id),
        ):
            self._uncertain.append((keys, request_id))

    def link_down(self, link: Link) -> None:
        """PENDING to STALLED: the server may have executed the publish or not."""
        self._connections += 1
        for queue in self._queues.values():
            if queue.link is link:
                queue.link = None
        for request in self._unacknowledged:
            if request.state is PENDING and request.queue.link is None:
                request.is_unsure = True
                request.state = STALLED
                request.queue.stalled.append(request)

    def _settle_soon(self, queue: VersionQueue) -> None:
        if not queue.is_settling:
            queue.is_settling = True
            spawn(self._settle(queue), "queue-settle")

    async def _settle(self, queue: VersionQueue) -> None:
        """Look at a queue on the present link, lose what is missing there, send what stalled."""
        delay_s = _RETRY_S
        try:
            while queue.stalled or queue.by_sequence:
                link = self._connection.link(queue.keys.slot)
                if link is None:
                    # The time of requests runs on.
                    return
                try:
                    if queue.link is not link:
                        await self._take_link(link, queue)
                    await self._send_stalled(link, queue)
                except RedisError as error:
                    self._connection.note_error(link, error)
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, TICK_S)
                    continue
                if not queue.stalled:
                    return
                await asyncio.sleep(_RETRY_S)
        finally:
            queue.is_settling = False

    async def _take_link(self, link: Link, queue: VersionQueue) -> None:
        """Give ``queue`` its link. Raises `RedisError`."""
        self._on_look(queue, await link.call_frame(self._look_frame(link, queue), _CALL_S))
        held = list(queue.by_sequence.values())
        for start in range(0, len(held), _CHECKED_AT_ONCE):
            await self._check(link, queue, held[start : start + _CHECKED_AT_ONCE])
        queue.link = link
        self._set_head(queue)

    async def _check(self, link: Link, queue: VersionQueue, held: list[PublishedRequest]) -> None:
        """Lose what the server does not have. Raises `RedisError`."""
        ids = [request.request_id.encode() for request in held]
        reply = await link.call_frame(queue.keys.frame(link, "missing", *ids), _CALL_S)
        missing = [held[index] for index in reply if held[index].state is HELD]
        if missing:
            self._lose(missing)

    # Looks

    def _look_frame(self, link: Link, queue: VersionQueue) -> bytes:
        return queue.keys.frame(
            link,
            "look",
            b"%d" % self._limits.max_runs,
            b"%d" % queue.looked_at_ms,
            link.run,
            new_uuid().encode(),
            self._lease_ms,
        )

    def _on_look(self, queue: VersionQueue, reply: Reply) -> None:
        """Learn what was leased, and which requests have used up their runs."""
        if isinstance(reply, RedisError):
            if queue.link is not None and isinstance(reply, ReplyError):
                self._connection.note_error(queue.link, reply)
            return
        life, highest, delivered = reply[:3]
        if life != queue.life:
            self._begin_life(queue, life)
        queue.delivered = max(queue.delivered, delivered)
        if highest > queue.highest:
            queue.highest = highest
            queue.highest_at = self._clock()
        queue.looked_at_ms = reply[6]
        for ended in reply[7:]:
            request = self._requests.get(ended.decode())
            if request is not None and request.state is HELD and request.queue is queue:
                self._end(request)
                request.callbacks.undeliverable()

    def _look_at(self, queue: VersionQueue) -> None:
        if queue.link is None or queue.stalled:
            self._settle_soon(queue)
        else:
            queue.link.send(self._look_frame(queue.link, queue), partial(self._on_look, queue))

    def _new_queue(self, version_id: str, stream: str, stored: CounterChild) -> VersionQueue:
        return VersionQueue(QueueKeys.of(self._region, version_id), stream, stored)

    def _is_connected(self) -> bool:
        return self._connection.is_connected()

    # Time

    def tick(self) -> None:
        """Fail what is due. Called every half second between `start` and `close`."""
        now = self._clock()
        self._fail_late(now)
        self._end_lost(now)
        if self._is_connected():
            self._look(now)
            self._withdraw_all_uncertain(_CHECKED_AT_ONCE)

    def _fail_late(self, now: float) -> None:
        """Fail what was not acknowledged in time, unless it waited in the queue before."""
        unacknowledged = self._unacknowledged
        while unacknowledged:
            request = unacknowledged[0]
            if request.is_unacknowledged():
                if now - request.at < self._limits.ack_timeout_s:
                    return
                if request.sequence:
                    self._lose_again(request)
                else:
                    keys = request.queue.keys
                    late = QueueUnavailable("The queue's server did not acknowledge in time")
                    self._fail(request, late, PublishStatus.TIMEOUT)
                    if request.number:
                        # It may be stored all the same.
                        self._withdraw_uncertain(keys, request.request_id)
            unacknowledged.popleft()


def _ignore(_reply: Reply) -> None:
    return None
