"""Bounded waiting: the deadline of the tests, and the only place in them that polls.

A test waits for a condition with `until`, and for a process or a thread with `until_blocking`. Both
fail at the deadline with a message that names the condition and the last value that was read.
"""

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

PATIENCE_S = 20.0 * float(os.environ.get("TEST_PATIENCE", "1"))
"""Deadline of a wait, in seconds. ``TEST_PATIENCE`` multiplies it on a slow or busy machine."""
_POLL_S = 0.01
"""Pause between two reads of a value whose changes nothing reports."""

Value = TypeVar("Value")


class Signal:
    """Reports changes to the tasks of one event loop that wait in `until`."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """Event that the next `notify` sets. Take it before reading the value."""
        return self._next

    def notify(self) -> None:
        self._next.set()
        self._next = asyncio.Event()


async def until(
    read: Callable[[], Value | Awaitable[Value]],
    accept: Callable[[Value], object] = bool,
    *,
    what: str | Callable[..., object] = "",
    timeout_s: float = PATIENCE_S,
    changed: Signal | None = None,
) -> Value:
    """Wait until ``accept`` is true for the value of ``read``; return that value.

    ``read`` may be a coroutine function. It is called again after each notification of ``changed``;
    without ``changed``, after a short pause. ``what`` completes the sentence "waited for ...": a
    text, or a function whose source is shown; the default is the condition. Raises
    `AssertionError` after ``timeout_s`` seconds.
    """
    last: object = "none was read"
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            while True:
                notified = asyncio.Event() if changed is None else changed.next
                found: Any = read()
                value: Value = await found if inspect.isawaitable(found) else found
                if accept(value):
                    return value
                last = value
                if changed is None:
                    asyncio.get_running_loop().call_later(_POLL_S, notified.set)
                await notified.wait()
    except TimeoutError:
        if not deadline.expired():
            raise
        what = what or (read if accept is bool else accept)
        text = what if isinstance(what, str) else _source(what)
        raise AssertionError(_failure(text, timeout_s, last)) from None


async def until_unchanged(
    read: Callable[[], Value], *, for_s: float, timeout_s: float = PATIENCE_S
) -> Value:
    """Wait until ``read`` has returned the same value for ``for_s`` seconds; return that value.

    Use it to observe that something has stopped. Raises `AssertionError` after ``timeout_s``
    seconds.
    """
    loop = asyncio.get_running_loop()
    last, since = read(), loop.time()

    def unchanged_s() -> float:
        nonlocal last, since
        value, now = read(), loop.time()
        if value != last:
            last, since = value, now
        return now - since

    await until(
        unchanged_s,
        lambda seconds: seconds >= for_s,
        what=f"{for_s:g} s without a change",
        timeout_s=timeout_s,
    )
    return last


def until_blocking(
    read: Callable[[], Value],
    accept: Callable[[Value], object] = bool,
    *,
    what: str,
    timeout_s: float = PATIENCE_S,
) -> Value:
    """Wait as `until` does, without an event loop, for what another thread or process does."""
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not accept(value := read()):
        assert time.monotonic() < end, _failure(what, timeout_s, value)
        pause.wait(_POLL_S)
    return value


def _failure(what: str, timeout_s: float, last: object) -> str:
    return f"waited {timeout_s:g} s for {what}; last value: {last!r}"


def _source(condition: Callable[..., object]) -> str:
    """Return the text of a function, or its ``repr`` if it has none of its own."""
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
