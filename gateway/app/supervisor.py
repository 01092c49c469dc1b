"""`--processes N`: one parent, N gateway processes on the same addresses.

The parent reserves every address, so that one in use is an error before any process starts; it
serves nothing itself. On TCP addresses each process listens with a socket of its own
(SO_REUSEPORT: the kernel distributes the connections) from the time at which it is ready; a Unix
socket is shared. A process that ends, also by a signal of its own, is started again; signals to the
parent are passed to all.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence

from http1.server.listener import bind_sockets, name_of
from runtime.events import emit
from runtime.lifecycle import EXIT_UNUSABLE, die_with_parent
from runtime.settings import Address

_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = _STOP_SIGNALS | {signal.SIGCHLD, signal.SIGALRM}
_RESTART_FIRST_S = 0.5
_RESTART_MOST_S = 10.0
_STEADY_S = 30.0
"""A process that lived this long starts again after the first delay."""
_SOONEST_S = 0.001
"""The shortest alarm: 0 would be none."""

_log = logging.getLogger("gateway.workers")


def bind_for(addresses: Sequence[Address], count: int) -> list[list[socket.socket]]:
    """Return the sockets of each of ``count`` processes. Raises `ListenError`.

    One process alone listens at once. Of several, each listens on TCP when it claims its sockets
    (`http1.server.listener.claim`).

    First each address is bound without SO_REUSEPORT: another gateway at the same address must be
    an error; it would silently get a share of the connections. That also resolves port 0.
    """
    first = bind_sockets(addresses)
    if count == 1:
        return [first]
    bound = [Address.parse(name_of(listening)) for listening in first]
    for listening, address in zip(first, bound, strict=True):
        if not address.is_unix:
            listening.close()
    tcp = [address for address in bound if not address.is_unix]
    shared = [listening for listening in first if listening.fileno() >= 0]
    return [
        bind_sockets(tcp, reuse_port=True, reserve=True) + [listening.dup() for listening in shared]
        for _ in range(count)
    ]


def alarm_after_s(due: Collection[float], now: float) -> float:
    """Return the seconds to the first time in ``due``, above 0; 0, no alarm, if there is none."""
    return max(min(due) - now, _SOONEST_S) if due else 0.0


Run = Callable[[int, list[socket.socket]], int]
"""Runs process ``index`` on its sockets to its end and returns the exit code."""


class Supervisor:
    """Starts the processes, passes signals on, and restarts processes that ended."""

    def __init__(self, run: Run, sockets: list[list[socket.socket]]) -> None:
        """``sockets[index]`` are the sockets of one process."""
        self._run = run
        self._sockets = sockets
        self._running: dict[int, tuple[int, float]] = {}
        self._due: dict[int, float] = {}
        self._delays_s = [_RESTART_FIRST_S] * len(sockets)
        self._is_stopping = False
        self._exit_code = 0

    def supervise(self) -> int:
        """Run until a stop signal came and all processes have ended; return the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for index in range(len(self._sockets)):
            self._start(index)
        while self._running or self._due:
            # sigtimedwait invents a signal when its time runs out during a standstill
            # (findings/python_sigtimedwait_invents_signals.sh).
            after_s = alarm_after_s(self._due.values(), time.monotonic())
            signal.setitimer(signal.ITIMER_REAL, after_s)
            received = signal.sigwaitinfo(_SIGNALS)
            if received.si_signo in _STOP_SIGNALS:
                self._stop(received.si_signo)
            self._reap()
            self._start_due()
        return self._exit_code

    def _start(self, index: int) -> None:
        pid = os.fork()
        if pid:
            self._running[pid] = index, time.monotonic()
            return
        code = 1
        try:
            # A process group of its own: Ctrl-C reaches the parent only, which passes it on once.
            os.setpgid(0, 0)
            die_with_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            own = self._sockets.pop(index)
            self._close_sockets()
            code = self._run(index, own)
        finally:
            os._exit(code)

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        self._due.clear()
        self._close_sockets()
        for pid in self._running:
            os.kill(pid, number)

    def _close_sockets(self) -> None:
        for sockets in self._sockets:
            for listening in sockets:
                listening.close()

    def _reap(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            index, started_at = self._running.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._is_stopping:
                self._exit_code = self._exit_code or max(code, 0)
            elif code == EXIT_UNUSABLE:
                self._exit_code = code
                self._stop(signal.SIGTERM)
            else:
                self._start_again(index, code, time.monotonic() - started_at)

    def _start_again(self, index: int, code: int, lived_s: float) -> None:
        if code == 0:
            # A stop signal to this process alone.
            self._due[index] = time.monotonic()
            emit(_log, "process.ended", index=index)
            return
        delay_s = _RESTART_FIRST_S if lived_s >= _STEADY_S else self._delays_s[index]
        self._delays_s[index] = min(delay_s * 2, _RESTART_MOST_S)
        self._due[index] = time.monotonic() + delay_s
        emit(_log, "process.died", logging.ERROR, index=index, code=code, again_s=delay_s)

    def _start_due(self) -> None:
        now = time.monotonic()
        for index in [index for index, at in self._due.items() if at <= now]:
            del self._due[index]
            self._start(index)
