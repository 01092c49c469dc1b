"""Where requests stand in line, over all gateway processes."""

import asyncio

from queueing.interface import QueueUnavailable
from queueing.nats.connection import Connection, NatsError
from queueing.nats.entries import HELD, Entry, VersionQueue
from queueing.nats.jetstream import ApiError, JetStream, QueueState
from queueing.nats.peers import Peers
from queueing.position import place
from runtime.tasks import spawn
from wire.ids import process_of
from wire.subjects import stream_name


class Standing:
    """Answers for positions and depths.

    One question to the broker (how far is the consumer?) and one to the other processes (how many
    of yours are before this?); the tables are the queue's own, read only. A request that was handed
    back or whose lease ran out counts as leased: it goes to the next free worker, before all that
    wait.
    """

    def __init__(
        self,
        connection: Connection,
        group: tuple[str, int],
        queues: dict[str, VersionQueue],
        requests: dict[str, Entry],
        wait_s: float,
    ) -> None:
        """``group`` is the region and our process number in it."""
        self._region, self._process = group
        self._queues = queues
        self._requests = requests
        self._stream = JetStream(connection)
        self._states: dict[str, asyncio.Task[QueueState | Exception | None]] = {}
        self.peers = Peers(connection, group, self._between, self._own, wait_s)

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the place in line, 0 when leased or unknown. Raises `QueueUnavailable`."""
        if request_id in self._requests or process_of(request_id) == self._process:
            return await self._own(version_id, request_id)
        return await self.peers.position_of(version_id, request_id)

    async def depth(self, version_id: str) -> int:
        """Return how many wait to be leased. Raises `QueueUnavailable`."""
        state = await self._state(stream_name(self._region, version_id))
        return state.waiting if state is not None else 0

    async def _own(self, version_id: str, request_id: str) -> int:
        entry = self._requests.get(request_id)
        if entry is None or entry.stage is not HELD:
            return 0
        queue = entry.queue
        state = await self._state(queue.stream)
        if state is None or entry.sequence <= state.delivered:
            return 0
        sequence, delivered = entry.sequence, state.delivered
        others = await self.peers.waiting_between(version_id, delivered, sequence)
        if entry.stage is not HELD or self._requests.get(request_id) is not entry:
            return 0
        return place(delivered, sequence, queue.line.between(delivered, sequence) + others)

    def _between(self, version_id: str, delivered: int, sequence: int) -> int:
        queue = self._queues.get(version_id)
        return queue.line.between(delivered, sequence) if queue is not None else 0

    async def _state(self, stream: str) -> QueueState | None:
        """Ask the broker; all who ask while an answer is under way share it."""
        asking = self._states.get(stream)
        if asking is None:
            asking = self._states[stream] = spawn(self._ask(stream), f"state-{stream}")
            asking.add_done_callback(lambda _: self._states.pop(stream, None))
        state = await asyncio.shield(asking)
        if isinstance(state, Exception):
            raise QueueUnavailable(str(state)) from state
        return state

    async def _ask(self, stream: str) -> QueueState | Exception | None:
        try:
            return await self._stream.consumer_state(stream)
        except (ApiError, NatsError) as error:
            return error
