"""Start, stop signals and exit of a process.

The first SIGTERM or SIGINT requests a graceful stop. The second cancels the main coroutine, whose
clean-up code still runs. The third ends the process immediately. The exit code is the main
coroutine's return value, or 128 plus the signal number if it was cancelled.
"""

import asyncio
import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from runtime.awake import AwakeClock
from runtime.interrupts import REPEAT_S
from runtime.tasks import cancel_all

EXIT_UNUSABLE = 2
"""Exit code of a process that cannot start with its configuration: a restart fails as well."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


class Lifecycle:
    """The stop request of this process: ``stopping`` is set by the first signal or by `stop`.

    ``signal_number`` is that of the last signal, 0 before the first. Belongs to the running loop.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.signal_number = 0
        self._signals = 0
        self._last_at = -math.inf
        self._main: asyncio.Task[Any] | None = None

    def install(self) -> None:
        """Install the signal handlers; a second signal cancels the task that calls this."""
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_signal, number)

    def remove(self) -> None:
        """Remove the signal handlers."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Request a graceful stop, as the first signal does."""
        self.stopping.set()

    def handle_signal(self, number: int) -> None:
        """Handle a stop signal: request a stop, cancel the main task, or exit at once."""
        now = time.monotonic()
        if now - self._last_at < REPEAT_S:
            return
        self._last_at = now
        self._signals += 1
        self.signal_number = number
        self.stopping.set()
        if self._signals == 2 and self._main is not None:
            self._main.cancel()
        elif self._signals > 2:
            os._exit(128 + number)


def run(main: Callable[[Lifecycle], Awaitable[int]]) -> int:
    """Run ``main`` on uvloop with the signal handlers installed; return the process's exit code.

    Tasks that still run when ``main`` returns are cancelled.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(main))


async def _run(main: Callable[[Lifecycle], Awaitable[int]]) -> int:
    lifecycle = Lifecycle()
    lifecycle.install()
    try:
        return await main(lifecycle)
    except asyncio.CancelledError:
        if not lifecycle.signal_number:
            raise
        return 128 + lifecycle.signal_number
    finally:
        await cancel_all()
        lifecycle.remove()


def die_with_parent() -> None:
    """Make the kernel send this process SIGTERM when its parent ends, even by SIGKILL.

    Linux only (prctl(2) PR_SET_PDEATHSIG); does nothing elsewhere. The kernel watches the parent's
    *thread* that started this process, so that thread must live as long as the parent.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


class Ticker:
    """Calls ``callback`` every ``interval_s`` of loop time between `start` and `stop`.

    An exception of the callback goes to the loop's exception handler, and the ticks go on. Ticks
    that a busy loop missed are skipped.
    """

    def __init__(
        self,
        interval_s: float,
        callback: Callable[[], object],
        *,
        measures_silence: bool = False,
    ) -> None:
        """``measures_silence``: the callback ends what has been silent for too long.

        Then it is not called right after a standstill (`runtime.awake`), but an interval later.
        """
        self._interval_s = interval_s
        self._callback = callback
        self._measures_silence = measures_silence
        self._awake: AwakeClock | None = None
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start ticking on the running loop; the first call is one interval from now."""
        self.stop()
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._awake = AwakeClock(now, self._interval_s) if self._measures_silence else None
        self._arm(loop, now + self._interval_s)

    def stop(self) -> None:
        """Stop ticking; the callback is not called again."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        self._next = loop.call_at(at, self._tick, loop, at)

    def _tick(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        # Armed before the call, because the callback may call `stop` and may raise.
        now = loop.time()
        next_at = at + self._interval_s
        self._arm(loop, next_at if next_at > now else now + self._interval_s)
        if self._awake is None or self._awake.advance(now):
            self._callback()
