"""The clients of calls over the polling routes that have an Idempotency-Key. Pure."""

from gateway.errors import GatewayError
from gateway.requests.detached import DetachedCall
from gateway.requests.exchanges import Windows
from gateway.requests.keyed import KeyedCall, RepeatedResponse
from gateway.requests.poll_exchanges import FirstPollExchange, PollExchange, WatchedWriter
from gateway.requests.polled_call import PolledCall
from gateway.requests.repetition import Repetition
from gateway.routing.cross_origin import PageAccess
from http1.stream import ResponseWriter


class KeyedPollExchange(FirstPollExchange):
    """The client that makes a call with a key. Others that have the key know of the call."""

    __slots__ = ("_keyed",)

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        call: PolledCall,
        client: ResponseWriter,
        windows: Windows,
        access: PageAccess,
        watched: WatchedWriter,
        window_s: float,
        keyed: KeyedCall,
        *,
        is_exec: bool,
    ) -> None:
        """The arguments are those of `FirstPollExchange`, and the key."""
        super().__init__(call, client, windows, access, watched, window_s, is_exec=is_exec)
        self._keyed = keyed

    def request_data(self, data: bytes) -> None:
        """The next bytes of the request body."""
        self._keyed.add(data)
        super().request_data(data)

    def request_end(self) -> None:
        """The request is complete: it can be compared with others."""
        self._keyed.complete()
        super().request_end()

    def abandon(self) -> None:
        """Let the call go on: a client that repeats it may come, as after a 202."""


class RepeatedPollExchange(RepeatedResponse, PollExchange):
    """A client that repeats a call over the polling routes: it gets what a poll gets."""

    __slots__ = ("_window_s",)

    def __init__(
        self,
        call: DetachedCall,
        client: ResponseWriter,
        windows: Windows,
        asked: Repetition,
        watched: WatchedWriter,
        *,
        is_exec: bool,
    ) -> None:
        """``client`` and ``watched`` are those of `PollExchange`."""
        PollExchange.__init__(self, call, client, windows, asked.access, watched, is_exec=is_exec)
        self._window_s = asked.poll_s

    def start(self) -> None:
        """Wait for the response as long as the client wants to."""
        try:
            self.begin(self._window_s)
        except GatewayError:
            self._watched.cancel()
            raise
