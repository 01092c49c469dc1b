"""Positions and depths of queues, summed over all gateway processes of a region.

The arithmetic on sequences is in `queueing.position`; `queueing.nats.peers` asks the other
processes.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from queueing.interface import LineState, QueueUnavailable
from queueing.nats.connection import NatsConnection, NatsError
from queueing.nats.jetstream import JetStream, JetStreamError, QueueState
from queueing.nats.peers import Peers
from queueing.position import position
from runtime.tasks import spawn
from wire.subjects import stream_name


class OwnSequences(Protocol):
    """The requests of this process (`queueing.nats.queue.JetStreamQueue`)."""

    def sequence_of(self, request_id: str) -> int:
        """Return the sequence of a request that the broker holds, else 0."""

    def count_between(self, version_id: str, delivered: int, sequence: int) -> int:
        """Return how many requests lie between two sequences of a queue."""


class Positions:
    """Computes positions and depths.

    A position takes one call to the broker (which sequence was leased last?) and one message to
    the other processes (how many of your requests lie before this one?). A request that was
    returned to the queue, or whose lease expired, counts as leased: the next free worker gets it
    before everything that waits.
    """

    def __init__(
        self, connection: NatsConnection, region: str, own: OwnSequences, peers: Peers
    ) -> None:
        self._jetstream = JetStream(connection)
        self._region = region
        self._own = own
        self._peers = peers
        self._calls: dict[str, asyncio.Task[QueueState | Exception | None]] = {}
        self._next_calls: dict[str, asyncio.Task[QueueState | Exception | None]] = {}

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the position of a request of this process, 0 when it is leased or unknown.

        Raises `QueueUnavailable`.
        """
        own = self._own
        sequence = own.sequence_of(request_id)
        if not sequence:
            return 0
        state = await self._state(stream_name(self._region, version_id))
        if state is None or sequence <= state.delivered:
            return 0
        delivered = state.delivered
        others = await self._peers.count_between(version_id, delivered, sequence)
        if not own.sequence_of(request_id):
            return 0
        ahead = own.count_between(version_id, delivered, sequence) + others
        return position(delivered, sequence, ahead)

    async def withdrawn(
        self, version_id: str, sequence: int, withdraw: Callable[[], None]
    ) -> int | None:
        """Call ``withdraw`` in any case, and return the position of its request before; 0: leased.

        The broker is asked before: removing a request by its id moves the consumer past it, as a
        lease does, and the broker may respond to questions later than it removes. It is asked again
        after: if as many were leased meanwhile as were ahead, the request may be among them, and
        the result is None, as for a queue that is gone. Raises `QueueUnavailable`.
        """
        stream = stream_name(self._region, version_id)
        try:
            before = await self._next_state(stream)
        finally:
            withdraw()
        if before is None:
            return None
        if sequence <= before.delivered:
            return 0
        others = await self._peers.count_between(version_id, before.delivered, sequence)
        own = self._own.count_between(version_id, before.delivered, sequence)
        rank = position(before.delivered, sequence, own + others)
        after = await self._next_state(stream)
        if after is None or after.created != before.created:
            return None
        return rank if after.deliveries - before.deliveries < rank else None

    async def line(self, stream: str) -> LineState:
        """Return what the broker knows of a queue. Raises `QueueUnavailable`."""
        state = await self._state(stream)
        if state is None:
            return LineState("", 0, 0, 0)
        return LineState(
            state.created, state.waiting, state.leased, state.deliveries, state.delivered
        )

    async def depth(self, stream: str) -> int:
        """Return how many requests wait for a lease. Raises `QueueUnavailable`."""
        state = await self._state(stream)
        return state.waiting if state is not None else 0

    async def _state(self, stream: str) -> QueueState | None:
        """Return the state of a queue; calls for the same queue at the same time share one."""
        call = self._calls.get(stream)
        if call is None:
            call = self._calls[stream] = spawn(self._call(stream), f"state-{stream}")
            call.add_done_callback(lambda _: self._calls.pop(stream, None))
        return _checked(await asyncio.shield(call))

    async def _next_state(self, stream: str) -> QueueState | None:
        """Return the state of a queue as it is after this moment."""
        call = self._next_calls.get(stream)
        if call is None:
            call = self._next_calls[stream] = spawn(self._call_next(stream), f"state-{stream}")
        return _checked(await asyncio.shield(call))

    async def _call_next(self, stream: str) -> QueueState | Exception | None:
        """Ask in the next turn: what is asked in this one shares the call."""
        await asyncio.sleep(0)
        del self._next_calls[stream]
        return await self._call(stream)

    async def _call(self, stream: str) -> QueueState | Exception | None:
        try:
            return await self._jetstream.consumer_state(stream)
        except (JetStreamError, NatsError) as error:
            return error


def _checked(state: QueueState | Exception | None) -> QueueState | None:
    if isinstance(state, Exception):
        raise QueueUnavailable(str(state)) from state
    return state
