"""The detached calls of one gateway process, by request id.

A call is in the book while it runs, and until its response is stored.
"""

from collections.abc import Callable

from gateway.invocation.collection import SpoolFile, SpoolUser
from gateway.requests.detached import AccountBytes, DetachedCall, Limits
from gateway.requests.errors import StorageQuota, TooManyDetachedCalls
from gateway.requests.exchanges import Window
from gateway.requests.recording import RecordingSpace
from http1.stream import ResponseWriter
from runtime.timers import Timers


class RequestBook:
    """Implements `gateway.requests.detached.CallPorts` and `gateway.requests.exchanges.Windows`.

    ``calls`` are by request id. ``running`` counts those that are not over.
    """

    def __init__(
        self,
        open_file: Callable[[SpoolUser], SpoolFile],
        clock: Callable[[], float],
        limits: Limits,
        max_calls: int,
    ) -> None:
        """``clock`` is the monotonic clock."""
        self.calls: dict[str, DetachedCall] = {}
        self.space = RecordingSpace(open_file)
        self.clock = clock
        self.limits = limits
        self.running = 0
        self._max_calls = max_calls
        self._accounts: dict[str, AccountBytes] = {}
        self._windows: Timers[Window] = Timers(now=clock())

    def make(
        self, account: str, source: ResponseWriter, kind: str, created_at: float
    ) -> DetachedCall:
        """Return a new call of ``account``; `add` it once its invocation has begun.

        Raises `TooManyDetachedCalls` and `StorageQuota`.
        """
        if len(self.calls) >= self._max_calls:
            raise TooManyDetachedCalls
        counted = self._accounts.get(account)
        if counted is None:
            counted = self._accounts[account] = AccountBytes()
        if 0 < self.limits.account_bytes <= counted.bytes:
            raise StorageQuota
        return DetachedCall(self, counted, source, kind, created_at)

    def add(self, call: DetachedCall) -> None:
        """Keep a call whose invocation has begun."""
        self.calls[call.request_id] = call
        if not call.is_over:
            self.running += 1

    def find(self, request_id: str) -> DetachedCall | None:
        """Return the call with this id, `None` if it is not here."""
        return self.calls.get(request_id)

    def tick(self) -> None:
        """Call `Window.timed_out` of each window whose time has come; a few times per second."""
        for window in self._windows.advance(self.clock()):
            window.timed_out()

    # `CallPorts`

    def changed(self, call: DetachedCall) -> None:
        """Nothing to do."""

    def finished(self, call: DetachedCall) -> None:
        """The call is over."""
        if call.request_id in self.calls:
            self.running -= 1

    # `Windows`

    def open(self, window: Window, seconds: float) -> None:
        """Call ``window`` back in so many seconds."""
        self._windows.schedule(self.clock() + seconds, window)

    def close(self, window: Window) -> None:
        """Do not call it back."""
        self._windows.cancel(window)
