"""Timeouts, also of a loop that stood still."""

import asyncio
import socket

import pytest

from runtime.timeouts import silence_limit
from tests.support.standstill import on_uvloop, stand_still_soon
from tests.support.waiting import PATIENCE_S


async def test_it_ends_a_wait() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with silence_limit(0.05):
            await asyncio.Event().wait()
    # The loop's clock may be a grain early.
    assert loop.time() - began >= 0.049


async def test_it_does_nothing_to_a_wait_that_is_over() -> None:
    async with asyncio.timeout(PATIENCE_S):
        async with silence_limit(0.01):
            pass
        reached = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, reached.set)
        await reached.wait()


def test_what_came_during_a_standstill_is_read_before_it_ends_a_wait() -> None:
    async def wait() -> None:
        ours, peers = socket.socketpair()
        with ours, peers:
            ours.setblocking(False)
            stand_still_soon(b"in time", peers)
            async with silence_limit(0.2):
                assert await asyncio.get_running_loop().sock_recv(ours, 100) == b"in time"

    on_uvloop(wait())


def test_a_peer_that_stays_silent_after_a_standstill_is_given_up() -> None:
    async def wait() -> None:
        ours, peers = socket.socketpair()
        with ours, peers:
            stand_still_soon(b"unread", peers)
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(TimeoutError):
                    async with silence_limit(0.2):
                        await asyncio.Event().wait()

    on_uvloop(wait())


async def test_a_cancellation_stays_a_cancellation() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        async with silence_limit(PATIENCE_S):
            await asyncio.Event().wait()
    task.uncancel()
