"""A timeout that does not take a standstill of this process for the silence of a peer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.awake import STANDSTILL_S

_READ_S = 0.5
"""After a standstill: time to read the sockets, and for one more round trip."""


@asynccontextmanager
async def silence_limit(timeout_s: float) -> AsyncIterator[None]:
    """Raise `TimeoutError` as ``asyncio.timeout`` does, but later after a standstill.

    For waits on a peer, whose response may have arrived while the process stood still.
    """
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    due = loop.time() + timeout_s
    timer: asyncio.TimerHandle

    def end() -> None:
        nonlocal timer
        if loop.time() - due > STANDSTILL_S:
            timer = loop.call_later(min(_READ_S, timeout_s), limit.reschedule, due)
        else:
            limit.reschedule(due)

    timer = loop.call_at(due, end)
    try:
        async with limit:
            yield
    finally:
        timer.cancel()
