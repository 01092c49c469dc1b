"""A detached call over NVCF's polling routes: somebody has to wait for its response.

Pure (`docs/wire.md` §24.2).
"""

from gateway.invocation.polled import CallProgress
from gateway.requests.detached import AccountBytes, CallPorts, DetachedCall
from gateway.requests.exchanges import Windows
from http1.stream import ResponseWriter
from runtime.timers import IDLE

MIN_PATIENCE_S = 10.0
"""Least time for a client to come back after a 202, as with NVCF's worker."""
_STOOD_STILL_S = 2.0
"""Timers that are so late tell that the process stood still, and took no polls meanwhile."""
KIND = "polled"
"""The word of these calls in the access log."""
_NOTHING = CallProgress()


class PolledCall(DetachedCall):
    """One call over the polling routes.

    If nobody waits for it for twice the first window, and for `MIN_PATIENCE_S` at least, it is
    cancelled. Its response is kept only if a client was told to come again: most are not.
    """

    __slots__ = ("_clients", "_patience", "_patience_s", "_windows", "progress")

    def __init__(
        self,
        ports: CallPorts,
        account_bytes: AccountBytes,
        source: ResponseWriter,
        created_at: float,
        windows: Windows,
        window_s: float,
    ) -> None:
        """``window_s`` is the first client's."""
        super().__init__(ports, account_bytes, source, KIND, created_at)
        self._windows = windows
        self._patience_s = max(2.0 * window_s, MIN_PATIENCE_S)
        self._patience: _Patience | None = None
        self._clients = 0
        self.progress = _NOTHING
        self.is_kept = False

    @property
    def percent(self) -> int | None:
        """How far the call has come, if a worker has told."""
        return self.progress.percent

    def show_progress(self, progress: CallProgress) -> None:
        """The worker has told how far the call has come."""
        if self.ending is None:
            self.progress = progress
            self.tell_watchers()

    def came(self) -> None:
        """A client waits for the response."""
        self._clients += 1
        if self._patience is not None:
            self._windows.close(self._patience)
            self._patience = None

    def went(self) -> None:
        """A client waits no longer."""
        self._clients -= 1
        if not self._clients and self.ending is None and not self.recording.is_over:
            self._wait(self._patience_s)

    def patience_ended(self, late_s: float) -> None:
        """Its patience is over, since ``late_s``."""
        if late_s > _STOOD_STILL_S:
            # Nobody could come.
            self._wait(MIN_PATIENCE_S)
        else:
            self.cancel()

    def now(self) -> float:
        """Return the monotonic time, in seconds."""
        return self._ports.clock()

    def _wait(self, seconds: float) -> None:
        self._patience = _Patience(self, self.now() + seconds)
        self._windows.open(self._patience, seconds)


class _Patience:
    """The time that a call has for the next client. A `gateway.requests.exchanges.Window`."""

    __slots__ = ("_call", "_ends_at", "due_at", "slot")

    def __init__(self, call: PolledCall, ends_at: float) -> None:
        self._call = call
        self._ends_at = ends_at
        self.due_at: float | None = None
        self.slot = IDLE

    def timed_out(self) -> None:
        """Nobody came."""
        self._call.patience_ended(self._call.now() - self._ends_at)
