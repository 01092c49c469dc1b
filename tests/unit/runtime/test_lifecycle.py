"""Signals and exit codes; in a child process where they would end the tests."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from runtime.lifecycle import Lifecycle, Ticker
from tests.support.standstill import on_uvloop, stand_still_soon

ROOT = Path(__file__).parents[3]

PROGRAM = """
import asyncio, os, signal, sys
from runtime import lifecycle, tasks

def killed(number):
    os.kill(os.getpid(), number)

async def stops(life):
    killed(signal.SIGTERM)
    await life.stopping.wait()
    return 0

async def stops_once(life):
    killed(signal.SIGTERM)
    killed(signal.SIGINT)
    await life.stopping.wait()
    reached = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, reached.set)
    await reached.wait()
    return 7

async def hangs(life):
    lifecycle.REPEAT_S = 0
    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            print("work tidied", flush=True)
    tasks.spawn(work(), "work")
    try:
        killed(signal.SIGINT)
        await life.stopping.wait()
        killed(signal.SIGINT)
        await asyncio.Event().wait()
    finally:
        print("tidied", flush=True)

async def hangs_on(life):
    lifecycle.REPEAT_S = 0
    try:
        killed(signal.SIGTERM)
        await life.stopping.wait()
        killed(signal.SIGTERM)
        await asyncio.Event().wait()
    finally:
        killed(signal.SIGTERM)
        await asyncio.Event().wait()

sys.exit(lifecycle.run(globals()[sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("main", "code", "output"),
    [
        ("stops", 0, ""),
        ("stops_once", 7, ""),
        ("hangs", 130, "tidied\nwork tidied\n"),
        ("hangs_on", 143, ""),
    ],
)
def test_a_first_signal_asks_a_second_cancels_and_a_third_ends(
    main: str, code: int, output: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), main],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, output, "")


CHILD = (
    "import signal; from runtime.lifecycle import die_with_parent as die; die(); print('ready'); "
)
CHILD += "import sys; sys.stdout.flush(); signal.pause()"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_process_ends_with_its_parent_even_when_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        # End of file: no process, the child included, holds the other end any more.
        assert parent.stdout.read() == b""


async def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    lifecycle = Lifecycle()
    lifecycle.install()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await lifecycle.stopping.wait()
    assert lifecycle.signal_number == signal.SIGTERM
    lifecycle.remove()
    assert signal.getsignal(signal.SIGTERM) == before


async def test_a_ticker_ticks_until_it_is_stopped_even_when_a_callback_fails() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    times: list[float] = []
    third = asyncio.Event()

    def tick() -> None:
        times.append(loop.time())
        if len(times) == 3:
            ticker.stop()
            third.set()
        raise ValueError("wrong")

    ticker = Ticker(0.01, tick)
    begun = loop.time()
    ticker.start()
    async with asyncio.timeout(10):
        await third.wait()
    # The loop's clock may be a grain early, never a whole tick.
    assert times[2] - begun >= 0.029
    after = asyncio.Event()
    loop.call_later(0.05, after.set)
    await after.wait()
    assert len(times) == 3
    assert [type(error) for error in reported] == [ValueError] * 3


@pytest.mark.parametrize("measures_silence", [True, False])
def test_a_ticker_that_measures_silence_ticks_after_a_standstill_when_sockets_were_read(
    measures_silence: bool,
) -> None:
    found: list[bytes] = []

    async def tick_twice() -> None:
        loop = asyncio.get_running_loop()
        first, second = asyncio.Event(), asyncio.Event()
        ours, peers = socket.socketpair()

        def tick() -> None:
            if first.is_set():
                second.set()
                ticker.stop()
                found.append(b"tick")
            first.set()

        ticker = Ticker(0.1, tick, measures_silence=measures_silence)
        with ours, peers:
            loop.add_reader(ours, lambda: found.append(ours.recv(100)))
            ticker.start()
            async with asyncio.timeout(10):
                await first.wait()
                stand_still_soon(b"read", peers)
                await second.wait()
            loop.remove_reader(ours)

    on_uvloop(tick_twice())
    assert found == ([b"read", b"tick"] if measures_silence else [b"tick"])
