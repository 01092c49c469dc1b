"""What happens to a detached call, as server-sent events: ``GET /v2/requests/{id}/events``.

The id of an event says how far the call was, so that a client which comes again with it, at any
process, gets what came after. While somebody watches a call that waits, its position is looked at
once per second.
"""

from collections.abc import Awaitable, Callable

import orjson

from gateway.requests.asked import EVENT_STREAM, Asked
from gateway.requests.detached import (
    CANCELLED,
    DONE,
    FAILED,
    LEASED,
    QUEUED_STATE,
    RESPONDING,
    DetachedCall,
)
from gateway.requests.exchanges import Windows
from gateway.requests.views import view_of
from http1.stream import NullRequestStream, ResponseWriter
from queueing.interface import QueueUnavailable
from runtime.tasks import spawn
from wire.headers import CONTENT_TYPE, X_ACCEL_BUFFERING
from wire.problem import id_headers

LOOK_S = 1.0
"""Time between two looks at the position of a call that is watched."""
ALIVE_S = 15.0
"""Time between two comments that keep the connection alive."""
MAX_LOOKS = 64
"""Looks at positions that a process has under way; further ones wait for the next second."""

_PROGRESS = "progress"
_HEAD_EVENT = "head"
_RANKS = {
    QUEUED_STATE: 1,
    LEASED: 2,
    _PROGRESS: 3,
    _HEAD_EVENT: 4,
    DONE: 5,
    FAILED: 5,
    CANCELLED: 5,
}
_LAST_RANK = 5
_REPEATED = frozenset({QUEUED_STATE, _PROGRESS})
"""Events that are sent again with other numbers."""

Position = Callable[[str, str], Awaitable[int]]
"""`queueing.interface.FunctionQueue.position`."""
IsStored = Callable[[str], bool]
"""`queueing.interface.FunctionQueue.is_stored`."""
Eta = Callable[[str, int], "int | None"]
"""Returns in how many seconds a version's call at a position will be leased, if that is known."""


class WatchedPositions:
    """Looks at positions, a bounded number at a time."""

    __slots__ = ("_is_stored", "_position", "_under_way", "eta_s")

    def __init__(self, position: Position, is_stored: IsStored, eta_s: Eta) -> None:
        self._position = position
        self._is_stored = is_stored
        self._under_way = 0
        self.eta_s = eta_s

    async def of(self, call: DetachedCall) -> int | None:
        """Return the position of a call: 0 if it is leased, `None` if that is not known."""
        invocation = call.invocation
        if call.state != QUEUED_STATE or invocation is None or self._under_way >= MAX_LOOKS:
            return None
        self._under_way += 1
        try:
            position = await self._position(call.version_id, call.request_id)
            # 0 is also that of a request that is not stored yet.
            return position if position or self._is_stored(call.request_id) else None
        except QueueUnavailable:
            return None
        finally:
            self._under_way -= 1


def rank_of(event_id: bytes) -> int:
    """Return how far the call was at the event with this id, 0 for no or an unknown id."""
    return _RANKS.get(event_id.partition(b":")[0].decode("latin-1"), 0)


def final_events(view: dict[str, object], last_event: bytes) -> bytes:
    """Return the events of a call that is over, as far as they come after ``last_event``."""
    known = rank_of(last_event)
    names = [
        name for name, member in ((LEASED, "leasedAt"), (_HEAD_EVENT, "headAt")) if view.get(member)
    ]
    return b"".join(
        encode_event(name, name, view)
        for name in (*names, str(view["state"]))
        if _RANKS.get(name, _LAST_RANK) > known
    )


def encode_event(name: str, event_id: str, view: dict[str, object]) -> bytes:
    """Return one event."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (
        name.encode(),
        event_id.encode(),
        orjson.dumps(view),
    )


class EventsExchange(NullRequestStream):
    """One client that watches a call."""

    __slots__ = (
        "_alive_at",
        "_call",
        "_client",
        "_clock",
        "_is_over",
        "_is_paused",
        "_last_percent",
        "_last_position",
        "_positions",
        "_seen",
        "_windows",
        "due_at",
        "slot",
    )

    def __init__(
        self,
        call: DetachedCall,
        client: ResponseWriter,
        windows: Windows,
        positions: WatchedPositions,
        clock: Callable[[], float],
    ) -> None:
        self._call = call
        self._client = client
        self._windows = windows
        self._positions = positions
        self._clock = clock
        self._seen = 0
        self._last_position: int | None = None
        self._last_percent: int | None = None
        self._is_over = self._is_paused = False
        self._alive_at = 0.0
        self.due_at: float | None = None
        self.slot = -1

    def begin(self, asked: Asked) -> None:
        """Send what is known, and then what happens."""
        client = self._client
        self._seen = rank_of(asked.last_event)
        if self._call.is_settled and self._seen >= _LAST_RANK:
            # Nothing more will come: 204 keeps an EventSource from coming again.
            asked.send(client, 204, [], b"")
            self._is_over = True
            return
        asked.counted(asked.request, 200)
        headers = [
            (CONTENT_TYPE, EVENT_STREAM),
            (b"cache-control", b"no-store"),
            (X_ACCEL_BUFFERING, b"no"),
            *id_headers(asked.request_id),
        ]
        client.send_head(200, asked.access.of_own_response(headers), None)
        if asked.request.method == b"HEAD":
            self._is_over = True
            client.send_end()
            return
        self._alive_at = self._clock() + ALIVE_S
        self._call.watch(self._tell)
        self._tell()
        if not self._is_over:
            self._look()

    def request_broken(self) -> None:
        """The client left."""
        self._stop()

    def pause_writing(self) -> None:
        """The client reads slowly: what happens meanwhile is told as far as it still holds."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._is_paused = False
        if not self._is_over:
            self._tell()

    def timed_out(self) -> None:
        """Look again."""
        now = self._clock()
        if now >= self._alive_at and not self._is_paused:
            self._alive_at = now + ALIVE_S
            self._client.send_data(b":\n\n")
        self._look()

    def _look(self) -> None:
        """Look at the position if the call waits; in any case come again."""
        is_waiting = self._call.state == QUEUED_STATE
        self._windows.open(self, LOOK_S if is_waiting else ALIVE_S)
        if is_waiting and not self._is_paused:
            spawn(self._look_once(), "requests.position")

    async def _look_once(self) -> None:
        position = await self._positions.of(self._call)
        if position is None or self._is_over or self._is_paused:
            return
        if position == 0:
            if self._call.state == QUEUED_STATE:
                self._send(LEASED, LEASED, position)
        elif self._seen <= _RANKS[LEASED] and position != self._last_position:
            self._last_position = position
            # A worker that had it may have given it back.
            self._seen = _RANKS[QUEUED_STATE]
            self._send(QUEUED_STATE, f"{QUEUED_STATE}:{position}", position)

    def _tell(self) -> None:
        """Send what the client has not been told of the call's state."""
        if self._is_over or self._is_paused:
            return
        call = self._call
        state = call.state
        if state == QUEUED_STATE and not self._seen:
            self._send(QUEUED_STATE, QUEUED_STATE)
        elif state != QUEUED_STATE:
            if call.leased_at() or state == LEASED:
                self._send(LEASED, LEASED)
            if state == LEASED and call.percent != self._last_percent:
                self._last_percent = call.percent
                self._send(_PROGRESS, f"{_PROGRESS}:{call.percent}")
            if call.head_at():
                self._send(_HEAD_EVENT, _HEAD_EVENT)
            if state not in (LEASED, RESPONDING):
                self._send(state, state)
                self._stop()
                self._client.send_end()

    def _send(self, name: str, event_id: str, position: int | None = None) -> None:
        """Send an event unless it, or a later one, was sent before."""
        rank = _RANKS[name]
        if rank < self._seen or (rank == self._seen and name not in _REPEATED):
            return
        self._seen = rank
        eta_s = None
        if position:
            eta_s = self._positions.eta_s(self._call.version_id, position)
        view = view_of(self._call, position, eta_s)
        self._client.send_data(encode_event(name, event_id, view))

    def _stop(self) -> None:
        self._is_over = True
        self._windows.close(self)
        self._call.unwatch(self._tell)
