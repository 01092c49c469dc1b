"""`Cancellation`: ends calls of threads from another thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakSet

from invocation_client.connection import CANCELLED
from invocation_client.sync_connection import SyncCall

_present: ContextVar["Cancellation | None"] = ContextVar(
    "invocation_client.cancellation", default=None
)


class Cancellation:
    """Ends the calls that began in its `scope`, for `Http2Transport`; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: WeakSet[SyncCall] = WeakSet()
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Calls that this thread begins in the block belong to this cancellation.

        So do their responses, also when they are read after the block.
        """
        token = _present.set(self)
        try:
            yield
        finally:
            _present.reset(token)

    def cancel(self) -> None:
        """End all calls of the scope: those that wait or are read raise `httpx.ReadError`.

        A call that begins later raises it at once, without a request. One whose response was read
        whole is not affected.
        """
        with self._lock:
            self._is_cancelled = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    # For Http2Transport

    def check(self) -> None:
        """Raise `httpx.ReadError` if this was cancelled."""
        if self._is_cancelled:
            raise CANCELLED.exception()

    def add(self, call: SyncCall) -> None:
        """End ``call`` too, at once if this was cancelled."""
        with self._lock:
            self._calls.add(call)
            is_late = self._is_cancelled
        if is_late:
            call.cancel()


def present() -> Cancellation | None:
    """Return the cancellation in whose scope this thread is."""
    return _present.get()


@contextmanager
def outside() -> Iterator[None]:
    """Calls that this thread begins in the block belong to no cancellation."""
    token = _present.set(None)
    try:
        yield
    finally:
        _present.reset(token)
