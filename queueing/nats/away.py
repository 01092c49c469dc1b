"""The queues of other regions, which a worker serves while its own is empty.

A pull that waits there would compete with the workers of that region for each request that comes.
So nothing is pulled before gateway processes say that requests have waited for a while
(`wire.subjects.waiting_notice`), and then no more than that, at once or not at all: what a worker
of the region is free for, it gets.

Everything else is as for the own queue: leases, their renewal, acknowledgements. A region that is
cut off is bound again when it is back.
"""

from collections.abc import Awaitable, Callable, Sequence

from queueing.interface import Lease, PollHandler
from queueing.nats.connection import NatsConnection
from queueing.nats.consumer import PullConsumer, PullOptions
from queueing.nats.polls import NatsPollSubscription
from queueing.nats.protocol import encode_publish
from wire.subjects import read_waiting_notice

_EXPIRES_NS = 20_000_000
"""So long is a pull open: what is known to wait arrives at once."""
_RETRY_MAX_S = 15.0


class AwayConsumer(PullConsumer):
    """The queue of one other region. ``home`` is that of the own region, whose slots these are."""

    retry_max_s = _RETRY_MAX_S

    def __init__(
        self,
        home: PullConsumer,
        connection: NatsConnection,
        *,
        region: str,
        version_id: str,
        on_lease: Callable[[Lease], None],
        options: PullOptions,
    ) -> None:
        super().__init__(
            connection,
            region=region,
            version_id=version_id,
            on_lease=on_lease,
            on_cancel=_ignore,
            options=options,
        )
        self._home = home
        self._region = region
        self._announced = 0

    def _on_cancelled(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        """Learn what is cancelled, which ``home`` reports, and what waits."""
        notice = read_waiting_notice(payload)
        if notice is None:
            super()._on_cancelled(subject, reply, headers, payload)
        elif notice[0] == self._region:
            self._announced = notice[1]
            self._ask_soon()

    def _ask(self) -> None:
        self._is_scheduled = False
        announced, self._announced = self._announced, 0
        home = self._home
        if not home.is_line_empty() or not self._is_bound or self._is_draining or self._asked:
            return
        batch = min(announced, home.free, self._max_batch)
        if batch <= 0:
            return
        self.pulls += 1
        pull = b'{"batch":%d,"expires":%d}' % (batch, _EXPIRES_NS)
        inbox = b"%b.%d" % (self._inbox, self.pulls)
        if self._connection.send(encode_publish(self._next_subject, inbox, pull)):
            self._asked = batch

    def _admit(self, lease: Lease) -> None:
        if self._cancels.ids and lease.request_id in self._cancels.ids:
            lease.ack()
        elif self._home.free > 0:
            self._home.taken()
            self._on_lease(lease)
        else:
            lease.nak()


class RegionalConsumer:
    """A `queueing.interface.PullConsumer`: the own region's queue, and those of others."""

    def __init__(self, home: PullConsumer, away: Sequence[AwayConsumer]) -> None:
        self._home = home
        self._away = away
        self.want = home.want
        self.taken = home.taken
        self.is_line_empty = home.is_line_empty
        self.is_bound = home.is_bound

    def start(self) -> None:
        """Begin to bind to all."""
        for consumer in (self._home, *self._away):
            consumer.start()

    def watch(
        self,
        on_standstill: Callable[[], None],
        on_loss: Callable[[], None],
        on_bound: Callable[[], None],
        renew: Callable[[], None],
        on_line: Callable[[], None],
    ) -> None:
        """Call these from now on."""
        self._home.watch(on_standstill, on_loss, on_bound, renew, on_line)
        for consumer in self._away:
            # The others are of process and connection, of which ``home`` tells.
            consumer.watch(_nothing, _nothing, on_bound, renew, _nothing)

    async def listen_for_polls(self, request_id: str, on_poll: PollHandler) -> NatsPollSubscription:
        """Call ``on_poll`` for every poll of a request. Raises `QueueUnavailable`."""
        return await self._home.listen_for_polls(request_id, on_poll)

    async def drain(self) -> None:
        """End all pulls."""
        await self._each(PullConsumer.drain)

    async def close(self) -> None:
        """Drain, unsubscribe, and send the last acknowledgements."""
        await self._each(PullConsumer.close)

    async def _each(self, end: Callable[[PullConsumer], Awaitable[None]]) -> None:
        for consumer in (self._home, *self._away):
            await end(consumer)


def _ignore(_request_id: str) -> None:
    """Do nothing: the consumer of the own region reports cancels."""


def _nothing() -> None:
    """Do nothing."""
