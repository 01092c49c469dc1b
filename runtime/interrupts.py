"""Ctrl-C while a program still imports its modules, which takes the better part of a second.

A `KeyboardInterrupt` there shows where the import was, which tells nobody anything. So SIGINT ends
the process at once, until somebody who has something to finish asks for it.
"""

import os
import signal
from types import FrameType

REPEAT_S = 0.5
"""Seconds within which a further signal counts as the same request: a signal to a process group
arrives twice, directly and again from a parent that forwards it, as make does."""
_EXIT_INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a command that Ctrl-C has ended."""


def end_at_once() -> None:
    """From now on SIGINT ends this process at once, without a word."""
    signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let SIGINT raise `KeyboardInterrupt` again, if `end_at_once` has changed that."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
    os._exit(_EXIT_INTERRUPTED)
