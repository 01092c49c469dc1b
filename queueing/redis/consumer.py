"""The worker's side of one queue on Redis: registered requests, leases, cancels.

A worker registers how many requests it wants. They come as messages on the worker's channel: what
waits at once, what is published later at that moment. The end of one lease and the wish for the
next request are one call, whose reply nobody waits for: the server sends none, but for one call in
`WATCH_S` that says how many were executed. If some were not, the consumer binds again and tells all
of them again. It is bound once the server has said that the queue exists; it binds again after
every lost link, and whenever the workers are told that the queue was made or has lost something:

    unbound ──bind──▶ bound ──link lost, queue gone──▶ unbound

When it binds on new links it says which leases it has: others were on their way when a link was
lost, and are given back. Before that its registrations end and all messages are read: none is on
its way then. Leases that ended while unbound are told after the next binding.

A process that stood still, or was cut off, finds messages whose leases may be over
(`queueing.standstill`): they are given back, which ends no lease of another worker. When many
requests wait and are short, a few are taken before there are slots for them (`queueing.held`).

A server that was replaced or restarted may have kept a request and forgotten that it was leased,
and a request that waited for a worker may have lost its client: those of a former life of the
server, and those stored before the binding, say so (`PushedLease.is_first_known`).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from secrets import token_hex

from queueing.interface import Lease, PollHandler
from queueing.lease_receiver import LeaseReceiver
from queueing.redis.commands import bulk, encode
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import NoResponse, NotConnected, RedisError, ReplyError, is_denied
from queueing.redis.keys import CREATED_NOTICE, FORGOTTEN_NOTICE, REMOVED_NOTICE, Life, QueueKeys
from queueing.redis.link import Link, Reply
from queueing.redis.polls import RedisPollSubscription, listen_for_polls
from queueing.redis.subscriber import Subscriber
from queueing.standstill import WATCH_S, boot_clock_s
from runtime.events import emit
from runtime.lifecycle import Ticker
from runtime.tasks import spawn
from wire.subjects import LOSS_NOTICE

_CALL_S = 2.0
_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 2.0
_SIGN_OF_LIFE_S = 20.0
"""Servers forget a worker that was not heard of for 50 s."""
_PING_S = 11.0
_MAX_REGISTERED = 256
"""More is not registered at once: so much, at 16 kB each, may lie in a socket that is not read."""
_MAX_AT_ONCE = 500
_MAX_UNSENT = 10_000
_MAX_UNCONFIRMED = 500
"""So many ends of leases may be told without a confirmation, for `WATCH_S` at most."""

_log = logging.getLogger("queueing.redis.consumer")


class PushedLease:
    """A `queueing.interface.Lease`; ``token`` is its name at the server, empty once it ended."""

    __slots__ = ("_consumer", "_head", "deliveries", "envelope", "request_id", "token")

    def __init__(self, consumer: "PushConsumer", head: bytes, envelope: bytes) -> None:
        """``head`` is the line before the envelope in a message: `queueing.redis.keys`."""
        self._consumer = consumer
        self._head = head
        self.token = token = head[: head.index(b" ")]
        request_id, deliveries, _ = token.split(b":", 2)
        self.request_id = request_id.decode()
        self.deliveries = int(deliveries)
        self.envelope = envelope

    def is_over(self) -> bool:
        """Whether the process has stood still since the lease was last renewed."""
        return self._consumer.is_over()

    def followers(self) -> int:
        """Return how many requests waited when this one was leased."""
        return int(self._head.split(b" ", 2)[1])

    def stored_at_ns(self) -> int:
        """Return when the server stored the request; 0 once the lease has ended."""
        if not self.token:
            return 0
        seconds, micros = self._head.split(b" ")[3:5]
        return int(seconds) * 1_000_000_000 + int(micros) * 1000

    def is_first_known(self) -> bool:
        """Whether ``deliveries`` counts all, of a client that is there: stored since the binding.

        In a former life of the server it may have been leased; and the gateway process of one that
        waited for a worker may be gone.
        """
        parts = self._head.split(b" ")
        consumer = self._consumer
        return parts[5] == consumer.generation and int(parts[3]) > consumer.bound_at_s

    def in_progress(self) -> None:
        """Start the time of the lease again."""
        if self.token:
            self._consumer.extend(self)

    def ack(self) -> None:
        """Remove the request from the queue."""
        token, self.token = self.token, b""
        if token:
            self._consumer.ended(token)

    def nak(self, delay_s: float = 0.0) -> None:
        """End the lease unused, for redelivery after ``delay_s``."""
        token, self.token = self.token, b""
        if token:
            self._consumer.given_back(token, delay_s)

    def term(self) -> None:
        """Remove the request from the queue without redelivery."""
        self.ack()


class PushConsumer(LeaseReceiver):
    """A `queueing.interface.PullConsumer`.

    ``generation`` is the gen of the queue's present life (`queueing.redis.keys`), ``bound_at_s``
    when it was last bound, by the server's clock.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        region: str,
        version_id: str,
        on_lease: Callable[[Lease], None],
        on_cancel: Callable[[str], None],
        boot_clock: Callable[[], float] = boot_clock_s,
    ) -> None:
        self._keys = QueueKeys.of(region, version_id)
        super().__init__(self._keys.key.decode(), on_lease, on_cancel, boot_clock)
        self._connection = connection
        self._worker = token_hex(6).encode()
        self._subscriber = Subscriber(
            connection, self._keys.slot, self._on_ready, self._on_unsubscribed
        )
        self._work_heads: dict[int, bytes] = {}
        self._epoch = b""
        self.generation = b""
        self.bound_at_s = 0
        self._binder: asyncio.Task[None] | None = None
        self._is_binding_again = self._has_new_links = False
        # Tokens of leases that this process has, and of those that ended and were not told.
        self._tokens: set[bytes] = set()
        self._ended: list[bytes] = []
        self._unsent: dict[bytes, float | None] = {}
        self._to_renew: list[PushedLease] = []
        # Ends of leases that were sent, and not confirmed yet.
        self._unconfirmed: list[bytes] = []
        self._is_unconfirmed = self._confirm_next = self._is_topping_up = False
        self._width = b""
        self._calls = 0
        self._pinged_at = 0.0
        self._call_later = asyncio.get_running_loop().call_later
        self._life = Ticker(_SIGN_OF_LIFE_S, self._show_life)

    # Start and end

    def start(self) -> None:
        """Subscribe and begin to bind; the connection may be up or down."""
        self._subscriber.subscribe(self._keys.worker_channel(self._worker), self._on_message)
        self._subscriber.subscribe(self._keys.cancel_channel, self._on_notice)
        self._subscriber.start()
        self._life.start()
        self._standstill.start()
        self._watcher.start()

    async def listen_for_polls(
        self, request_id: str, on_poll: PollHandler
    ) -> RedisPollSubscription:
        """Call ``on_poll`` for every poll of a request. Raises `QueueUnavailable`."""
        channel = self._keys.polling_channel(request_id.encode())
        return await listen_for_polls(self._subscriber, channel, on_poll)

    async def drain(self) -> None:
        """End all registrations; no lease arrives after this returns."""
        self._is_draining = True
        self._is_open = False
        self._free = 0
        self._held.give_back()
        ended = asyncio.Event()
        if self._unregister(lambda _reply: ended.set()):
            await ended.wait()
        await self.read_all()
        self._ask()

    async def close(self) -> None:
        """Drain, unsubscribe, and return when the last ends of leases have been sent."""
        await self.drain()
        self._life.stop()
        self._watcher.stop()
        if self._binder is not None:
            self._binder.cancel()
        if (main := self._subscriber.main) is not None:
            with suppress(RedisError):
                await main.call(b"PING", timeout_s=_CALL_S)
        await self._subscriber.close()

    # Binding

    def _on_ready(self, _link: Link) -> None:
        self._has_new_links = True
        self._bind_soon()

    def _bind_soon(self) -> None:
        if self._binder is not None and not self._binder.done():
            self._is_binding_again = True
        else:
            self._binder = spawn(self._bind(), f"bind-{self._keys.key.decode()}")

    async def _bind(self) -> None:
        delay_s = 0.0
        while True:
            if delay_s:
                await asyncio.sleep(delay_s)
            delay_s = min(max(2 * delay_s, _RETRY_MIN_S), _RETRY_MAX_S)
            main = self._subscriber.main
            if main is None:
                # `_on_ready` binds again.
                return
            self._is_binding_again = False
            try:
                life, bound_at_s = await self._call_bind(main)
            except RedisError as error:
                self._connection.note_error(main, error)
                emit(_log, "pull.not_bound", logging.WARNING, error=str(error))
                continue
            if self._subscriber.main is not main:
                return
            if self._is_binding_again:
                delay_s = 0.0
                continue
            if life:
                self.bound_at_s = bound_at_s
                self._bound(main, Life.of(life))
            return

    async def _call_bind(self, main: Link) -> Reply:
        is_new = self._has_new_links
        tokens: tuple[bytes, ...] = ()
        if is_new:
            # What is pushed for a registration of before could else be given back and run.
            await main.call_frame(self._keys.frame(main, "unregister", self._worker), _CALL_S)
            await self._subscriber.read_all(_CALL_S)
            tokens = (*self._tokens, *self._ended, *self._unconfirmed, *self._unsent)
        self._asked = self._calls = 0
        frame = self._keys.frame(
            main,
            "bind",
            self._worker,
            main.run,
            b"%d" % is_new,
            *tokens[: 10 * _MAX_AT_ONCE],
        )
        reply = await main.call_frame(frame, _CALL_S)
        if self._subscriber.main is main:
            self._has_new_links = False
        return reply

    def _bound(self, main: Link, life: Life) -> None:
        if self._epoch and life.epoch != self._epoch:
            # Their leases are of a queue that is gone.
            self._unsent.clear()
            self._ended.clear()
            self._tokens.clear()
        self._epoch = life.epoch
        self.generation = life.gen
        self._width = bulk(life.width)
        self._standstill.set_lease(life.lease_ms / 1000)
        self._work_heads = {n: self._work_head(main, n) for n in (0, 1)}
        self._is_bound = True
        self._tell_bound()
        unsent, self._unsent = self._unsent, {}
        for token, delay_s in unsent.items():
            if delay_s is None:
                self._ended.append(token)
            else:
                self._give_back(main, [token], delay_s)
        # None was while the server was away.
        self._standstill.renewed()
        self._renew()
        self._confirm_next = True
        self._ask()

    def _work_head(self, main: Link, ended: int) -> bytes:
        head = self._keys.call("work", ended + 3, is_cluster=main.is_cluster)
        return head + bulk(self._worker)

    def _on_unsubscribed(self) -> None:
        """A link is lost: so are the registrations, and what was on its way."""
        self._is_bound = False
        self._keep_unsent(self._unconfirmed, None)
        self._unconfirmed.clear()
        self._asked = 0
        self._set_line(is_empty=False)
        self._held.give_back()
        self._on_loss()

    # Requests

    def _stop_asking(self) -> None:
        self._unregister(_ignore)

    def _ask(self) -> None:
        """Tell which leases have ended, and register as many requests as there are slots."""
        self._is_scheduled = False
        held = self._held
        if held.waiting:
            self._hand_over()
        ended, self._ended = self._ended, []
        main = self._subscriber.main
        if main is None or not self._is_bound:
            self._keep_unsent(ended, None)
            return
        if self._to_renew:
            self._send_renewals(main)
        wanted = 0
        if self._is_open and not self._is_draining and not self.is_over():
            ahead = held.ahead if not self._is_line_empty else 0
            most = min(self._free + ahead, _MAX_REGISTERED)
            covered = self._asked + len(held.waiting)
            # Not for every lease, unless there is something to say anyhow, and no line.
            is_full = (ended and not ahead) or self._is_topping_up
            if most > covered and (is_full or 2 * covered <= most):
                wanted = most - covered
            self._is_topping_up = False
        if len(ended) > _MAX_AT_ONCE:
            for start in range(_MAX_AT_ONCE, len(ended), _MAX_AT_ONCE):
                self._send_work(main, ended[start : start + _MAX_AT_ONCE], 0)
            ended = ended[:_MAX_AT_ONCE]
        if ended or wanted:
            self._send_work(main, ended, wanted)

    def _send_work(self, main: Link, ended: list[bytes], wanted: int) -> None:
        count = len(ended)
        head = self._work_heads.get(count) or self._work_head(main, count)
        words = b"".join([b"$%d\r\n%b\r\n" % (len(token), token) for token in ended])
        number = b"%d" % wanted
        frame = b"%b$%d\r\n%b\r\n%b%b" % (head, len(number), number, self._width, words)
        earlier, unconfirmed = self._unconfirmed, ended
        if self._confirm_next or len(earlier) + count > _MAX_UNCONFIRMED:
            self._confirm_next = False
            unconfirmed = [*earlier, *ended]
            earlier.clear()
            is_sent = main.send(frame, partial(self._on_work, main, unconfirmed, self._calls + 1))
        else:
            is_sent = main.send_silently(frame)
            if is_sent:
                earlier += ended
                self._is_unconfirmed = True
        if is_sent:
            self._calls += 1
            self._asked += wanted
        else:
            self._keep_unsent(unconfirmed, None)

    def _on_work(self, main: Link, unconfirmed: list[bytes], calls: int, reply: Reply) -> None:
        """The reply to one call confirms those before it, if so many were executed."""
        if isinstance(reply, int) and abs(reply) == calls:
            if self._asked:
                self._set_line(is_empty=reply < 0 and not self._held.waiting)
            if reply < 0 and self._asked < self._free:
                self._is_topping_up = True
                self._ask_soon()
            return
        self._keep_unsent(unconfirmed, None)
        if isinstance(reply, NotConnected):
            return
        is_passing = True
        if isinstance(reply, ReplyError):
            is_passing = self._connection.note_error(main, reply)
            if not is_passing:
                event = "pull.denied" if is_denied(reply) else "pull.refused"
                emit(_log, event, logging.WARNING, error=str(reply))
        self._is_bound = False
        self._call_later(_RETRY_MIN_S if is_passing else _RETRY_MAX_S, self._bind_soon)

    def _on_message(self, _channel: bytes, payload: bytes) -> None:
        """A request was leased to this worker, or the server has forgotten it."""
        if payload == FORGOTTEN_NOTICE:
            self._bind_soon()
            return
        if self._asked > 0:
            self._asked -= 1
        head, is_whole, envelope = payload.partition(b"\n")
        is_last = head.split(b" ", 2)[1] == b"0"
        if is_whole:
            self._lease(head, envelope, self._standstill.read_at)
        else:
            self._fetch(head, self._standstill.read_at)
        held = self._held
        if is_last is not self._is_line_empty and (self._asked or not is_last):
            self._set_line(is_empty=is_last and not held.waiting)
        if 2 * (self._asked + len(held.waiting)) <= self._free + held.ahead:
            self._ask_soon()

    def _fetch(self, head: bytes, since: float) -> None:
        """Read the envelope of a request that is too long for a message."""
        main, token = self._subscriber.main, head.partition(b" ")[0]
        self._tokens.add(token)
        bucket = token.split(b":", 4)[3]
        frame = encode(b"HGET", b"%b:l%b" % (self._keys.key, bucket), token)

        def arrived(value: Reply) -> None:
            self._tokens.discard(token)
            if isinstance(value, bytes):
                rest, _, envelope = value.partition(b"\n")
                self._lease(b"%b %b" % (head, rest), envelope, since)
            else:
                # The lease is over, or the server refuses for now.
                self.given_back(token, 0.0)

        if main is None or not main.send(frame, arrived):
            self._tokens.discard(token)

    def _lease(self, head: bytes, envelope: bytes, since: float) -> None:
        """Begin a lease that is no older than ``since``, hold it, or give it back."""
        lease = PushedLease(self, head, envelope)
        self._tokens.add(lease.token)
        if self._boot_clock() - since < self._standstill.max_s:
            self._admit(lease)
            return
        self._held.lapsed += 1
        if self._asked:
            # Or it would come back at once, until all has been read.
            self._unregister(_ignore)
        lease.nak()
        # A link that was slow to bring an envelope is no standstill, after which all binds again.
        self._ask_soon()

    def _unregister(self, done: Callable[[Reply], None]) -> bool:
        """End all registrations; what was on its way before still arrives."""
        self._set_line(is_empty=False)
        main = self._subscriber.main
        if main is None:
            self._asked = 0
            return False

        def ended(reply: Reply) -> None:
            if isinstance(reply, int):
                self._asked = max(0, self._asked - reply)
                if self._is_open:
                    self._ask_soon()
            done(reply)

        return main.send(self._keys.frame(main, "unregister", self._worker), ended)

    # Ends of leases, called by leases

    def ended(self, token: bytes) -> None:
        """A lease has ended: its request leaves the queue."""
        self._tokens.discard(token)
        self._ended.append(token)
        self._ask_soon()

    def given_back(self, token: bytes, delay_s: float) -> None:
        """A lease has ended unused."""
        self._tokens.discard(token)
        main = self._subscriber.main
        if main is None or not self._is_bound:
            self._keep_unsent([token], delay_s)
        else:
            self._give_back(main, [token], delay_s)

    def _give_back(self, main: Link, tokens: list[bytes], delay_s: float) -> None:
        frame = self._keys.frame(main, "nak", b"%d" % int(delay_s * 1000), *tokens)

        def done(reply: Reply) -> None:
            if isinstance(reply, RedisError):
                self._keep_unsent(tokens, delay_s)
            if isinstance(reply, ReplyError):
                self._connection.note_error(main, reply)
                self._call_later(_RETRY_MAX_S, self._bind_soon)

        if not main.send(frame, done):
            self._keep_unsent(tokens, delay_s)
        elif delay_s > 0:
            self._call_later(delay_s + 0.001, self._give_back_due)

    def _give_back_due(self) -> None:
        """A delay is over: the server has no clock of its own for it."""
        if (main := self._subscriber.main) is not None:
            main.send(self._keys.frame(main, "due"), partial(self._on_due, main))

    def _on_due(self, main: Link, reply: Reply) -> None:
        if isinstance(reply, ReplyError) and self._connection.note_error(main, reply):
            self._call_later(_RETRY_MAX_S, self._give_back_due)

    def _keep_unsent(self, tokens: list[bytes], delay_s: float | None) -> None:
        """Keep ends of leases for the next binding; ``delay_s`` is None for done work."""
        unsent = self._unsent
        for token in tokens:
            if len(unsent) >= _MAX_UNSENT:
                del unsent[next(iter(unsent))]
            unsent[token] = delay_s

    def extend(self, lease: PushedLease) -> None:
        """Start the time of a lease again."""
        self._to_renew.append(lease)
        self._ask_soon()

    def _send_renewals(self, main: Link) -> None:
        leases = [lease for lease in self._to_renew if lease.token]
        self._to_renew = []
        self._standstill.renewed()
        for start in range(0, len(leases), _MAX_AT_ONCE):
            part = leases[start : start + _MAX_AT_ONCE]
            tokens = [lease.token for lease in part]
            frame = self._keys.frame(main, "renew", self._worker, *tokens)
            main.send(frame, partial(self._on_renewed, part, tokens))

    def _on_renewed(self, leases: list[PushedLease], tokens: list[bytes], reply: Reply) -> None:
        """A lease that was renewed has a new name."""
        if not isinstance(reply, list):
            return
        for lease, was, token in zip(leases, tokens, reply, strict=False):
            if token and token != was and lease.token == was:
                self._tokens.discard(was)
                self._tokens.add(token)
                lease.token = token

    def _show_life(self) -> None:
        main = self._subscriber.main
        if main is not None and self._is_bound:
            main.send(self._keys.frame(main, "renew", self._worker), _ignore)

    # Notices

    def _on_notice(self, _channel: bytes, payload: bytes) -> None:
        if payload == LOSS_NOTICE:
            self._held.give_back()
            self._on_loss()
            # The registrations may be lost too.
            self._bind_soon()
        elif payload == CREATED_NOTICE:
            self._bind_soon()
        elif payload == REMOVED_NOTICE:
            self._is_bound = False
            self._asked = 0
            self._set_line(is_empty=False)
            self._bind_soon()
        else:
            request_id = payload.decode("utf-8", "replace")
            self._cancelled(request_id)

    # For `Standstill`

    def _are_held_over(self) -> bool:
        """No: what is held for too long is given back, however late."""
        return False

    def _drop_held(self) -> None:
        self._held.give_back()

    def is_silent_usual(self) -> bool:
        """Whether nothing is registered, nor was before a binding that goes on."""
        is_binding = self._binder is not None and not self._binder.done()
        return not (self._asked or is_binding)

    def read_bytes(self) -> int:
        """Return how much the link for messages has read."""
        return self._subscriber.in_bytes

    def heartbeat_s(self) -> float:
        """Return the interval between the replies to PING."""
        return min(_PING_S, self._standstill.max_s / 2)

    async def read_all(self) -> None:
        """Return when all has been read that was sent before, or the link is lost."""
        while True:
            try:
                await self._subscriber.read_all(_CALL_S)
            except NoResponse:
                # The link is cut off: what it brings later is not new.
                continue
            except RedisError:
                pass
            return

    def all_read(self) -> None:
        """Register again: the server may have forgotten this worker."""
        super().all_read()
        self._bind_soon()

    def _watch(self) -> None:
        now = self._boot_clock()
        main = self._subscriber.main
        if self._is_unconfirmed and main is not None and self._is_bound:
            self._is_unconfirmed = False
            self._confirm_next = True
            self._send_work(main, [], 0)
        if not self.is_silent_usual() and now - self._pinged_at >= self.heartbeat_s():
            # Nothing else may arrive while nothing is published.
            self._pinged_at = now
            self._subscriber.ping()
        self._held.measure(max(self._standstill.watch(), WATCH_S))


def _ignore(_reply: Reply) -> None:
    return None
