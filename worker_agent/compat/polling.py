"""When the clients of one request are told to ask again, and which of them gets the response.

The first client waits on the envelope's token, each further one on that of its poll. Whichever
comes first ends the wait of a client: the response, news of its progress, the end of its window.
The last two are a 202. Before the first 202 the worker listens for polls, so that none is missed.

    WAITING ──response──▶ OVER
       │ ▲ progress or end of the window: listen, if it is the first
       ▼ │                                  │
    LISTENING ──────▶ POSTING (202) ──▶ IDLE ──poll──▶ WAITING
                                             └─nobody polls in time─▶ OVER: given up

If nobody polls within twice the first client's window, 10 s at least, nobody wants the response.
The same if a 202 cannot be delivered before the window's end; after it, a client may still come
within 5 s. Polls are served one after the other. Pure: times are loop time, in seconds. Source:
``docs/wire.md`` §8.8.
"""

from collections import deque
from enum import IntEnum
from typing import Protocol

from wire.decoded_envelope import Envelope

MIN_PATIENCE_S = 10.0
GRACE_S = 5.0
"""So long a poll may still come when a 202 could not be delivered after its client's window."""
MAX_WAITING = 8
"""Further polls that wait at the same time; more are not acknowledged."""
LISTEN_AGAIN_S = 0.25


class Stage(IntEnum):
    """Where the clients of a request are."""

    WAITING = 1
    LISTENING = 2
    POSTING = 3
    IDLE = 4
    OVER = 5


class PolledClient:
    """A client that waits, until ``due_at`` at most. ``envelope`` says where to respond to it."""

    __slots__ = ("due_at", "envelope")

    def __init__(self, envelope: Envelope, due_at: float) -> None:
        self.envelope = envelope
        self.due_at = due_at


class PollingPort(Protocol):
    """What the clients' side of a request brings about."""

    def listen(self) -> None:
        """Listen for polls; ends in ``listening`` or ``not_listening``."""

    def post(self, client: PolledClient, response: bytes) -> None:
        """Deliver a 202 to a client; ends in ``posted`` or ``post_failed``."""

    def wake_at(self, due_at: float | None) -> None:
        """Call ``due`` at that time; it replaces an earlier one, and `None` cancels it."""

    def ask_again(self, client: PolledClient) -> None:
        """Ask the inference server for the response, on behalf of a client."""

    def respond(self, client: PolledClient) -> None:
        """Deliver the response to a client: all is over."""

    def give_up(self) -> None:
        """Nobody wants the response: all is over."""


class Polling:
    """The clients of one request.

    ``stage`` is where they are, ``empty`` the 202 at the end of a window. With ``asks_again``, a
    202 is the inference server's own: each poll makes a further request, and windows are the
    server's concern.
    """

    __slots__ = (
        "_client",
        "_empty",
        "_has_response",
        "_is_held",
        "_is_listening",
        "_news",
        "_patience_s",
        "_port",
        "_waiting",
        "asks_again",
        "stage",
    )

    def __init__(
        self,
        port: PollingPort,
        first: PolledClient,
        window_s: float,
        empty: bytes,
        *,
        asks_again: bool = False,
    ) -> None:
        """``window_s`` is the whole window of the first client."""
        self._port = port
        self._client = first
        self._patience_s = max(2 * window_s, MIN_PATIENCE_S)
        self._empty = empty
        self.asks_again = asks_again
        self._news = b""
        self._waiting: deque[PolledClient] = deque()
        self._has_response = self._is_listening = self._is_held = False
        self.stage = Stage.WAITING

    @property
    def client(self) -> PolledClient | None:
        """Who waits now."""
        return self._client if self.stage in (Stage.WAITING, Stage.LISTENING) else None

    def begin(self) -> None:
        """The first client waits."""
        if not self.asks_again:
            self._port.wake_at(self._client.due_at)

    def hold(self) -> None:
        """Tell nobody to ask again: the request is not complete."""
        self._is_held = True

    def release(self, now: float) -> None:
        """The request is complete."""
        self._is_held = False
        if self.stage is Stage.WAITING and (self._news or now >= self._client.due_at):
            self._postpone(self._news or self._empty)

    def progressed(self, response: bytes) -> None:
        """There is news for whoever waits, now or next: a whole 202. The latest counts."""
        self._news = response
        if self.stage is Stage.WAITING and not self._is_held:
            self._postpone(response)

    def responded(self) -> None:
        """There is a response."""
        if self.stage in (Stage.WAITING, Stage.LISTENING):
            self._respond()
        elif self.stage is not Stage.OVER:
            self._has_response = True

    def has_room(self) -> bool:
        """Whether one more client may wait."""
        return self.stage is not Stage.OVER and len(self._waiting) < MAX_WAITING

    def polled(self, client: PolledClient, now: float) -> None:
        """A further client waits."""
        if self.stage is Stage.IDLE:
            self._take(client, now)
        elif self.stage is not Stage.OVER:
            self._waiting.append(client)

    def listening(self) -> None:
        """Polls arrive from now on."""
        self._is_listening = True
        if self.stage is Stage.LISTENING:
            self._post(self._news or self._empty)

    def not_listening(self, now: float) -> None:
        """The broker is not there; the client goes on waiting."""
        if self.stage is Stage.LISTENING:
            self.stage = Stage.WAITING
            self._port.wake_at(now + LISTEN_AGAIN_S)

    def posted(self, now: float) -> None:
        """The client has its 202."""
        if self.stage is Stage.POSTING:
            self._idle(now, self._patience_s)

    def post_failed(self, now: float) -> None:
        """The 202 could not be delivered."""
        if self.stage is not Stage.POSTING:
            return
        if now < self._client.due_at and not self._waiting:
            self._give_up()
        else:
            self._idle(now, GRACE_S)

    def due(self) -> None:
        """The time of `PollingPort.wake_at` has come."""
        if self.stage is Stage.IDLE:
            self._give_up()
        elif self.stage is Stage.WAITING and not self._is_held:
            self._postpone(self._news or self._empty)

    def end(self) -> None:
        """The request is over for another reason."""
        self.stage = Stage.OVER
        self._waiting.clear()
        self._port.wake_at(None)

    def _postpone(self, response: bytes) -> None:
        self._news = response
        if self._is_listening:
            self._post(response)
        else:
            self.stage = Stage.LISTENING
            self._port.wake_at(None)
            self._port.listen()

    def _post(self, response: bytes) -> None:
        self.stage = Stage.POSTING
        self._news = b""
        self._port.wake_at(None)
        self._port.post(self._client, response)

    def _idle(self, now: float, patience_s: float) -> None:
        self.stage = Stage.IDLE
        if self._waiting:
            self._take(self._waiting.popleft(), now)
        else:
            self._port.wake_at(now + patience_s)

    def _take(self, client: PolledClient, now: float) -> None:
        self.stage = Stage.WAITING
        self._client = client
        self._port.wake_at(None)
        if self._has_response:
            self._respond()
        elif self.asks_again:
            self._port.ask_again(client)
        elif self._news or now >= client.due_at:
            self._postpone(self._news or self._empty)
        else:
            self._port.wake_at(client.due_at)

    def _respond(self) -> None:
        self.stage = Stage.OVER
        self._waiting.clear()
        self._port.wake_at(None)
        self._port.respond(self._client)

    def _give_up(self) -> None:
        self.stage = Stage.OVER
        self._port.wake_at(None)
        self._port.give_up()
