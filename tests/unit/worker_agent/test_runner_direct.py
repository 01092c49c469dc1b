"""Calls over channels under any interleaving of arrivals, losses, deaths and standstills."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.direct_world import DirectWorld, ModelWorker
from tests.support.memory_wire import VirtualLoop, settle

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["call"] * 6
            + ["move"] * 8
            + ["finish"] * 4
            + ["all"] * 3
            + ["time"] * 2
            + ["leave", "cut", "cut", "block", "long", "kill worker", "kill gateway", "pause"]
        ),
        st.integers(0, 23),
    ),
    max_size=70,
)


async def _all(world: DirectWorld, choice: int) -> None:
    for _ in range(choice // 2):
        await settle()
        for move in world.moves():
            move()


def _move(world: DirectWorld, choice: int) -> None:
    if moves := world.moves():
        moves[choice % len(moves)]()


def _finish(world: DirectWorld, choice: int) -> None:
    if runs := world.runs():
        way = choice % 5
        world.losses += way == 3
        runs[choice // 5 % len(runs)].finish(way)


def _leave(world: DirectWorld, choice: int) -> None:
    if calls := list(world.calls.values()):
        calls[choice % len(calls)].leave()


def _worker(world: DirectWorld, choice: int) -> ModelWorker:
    return world.workers[choice % len(world.workers)]


def _call(world: DirectWorld, choice: int) -> None:
    gateway = world.gateways[choice % len(world.gateways)]
    gateway.call(b"GET" if choice & 4 else b"POST")


def _block(world: DirectWorld, choice: int) -> None:
    worker = _worker(world, choice)
    worker.is_blocked = not worker.is_blocked
    world.cut(worker)


def _pause(world: DirectWorld, choice: int) -> None:
    worker = _worker(world, choice)
    worker.is_paused = not worker.is_paused


_DO: dict[str, Callable[[DirectWorld, int], Coroutine[Any, Any, None] | None]] = {
    "call": _call,
    "move": _move,
    "finish": _finish,
    "all": _all,
    "leave": _leave,
    "cut": lambda world, choice: world.cut(_worker(world, choice)),
    "block": _block,
    "kill worker": lambda world, choice: world.replace_worker(choice % len(world.workers)),
    "kill gateway": lambda world, choice: world.replace_gateway(
        choice % len(world.gateways), keeps_address=choice % 3 > 0
    ),
    "pause": _pause,
    "time": lambda world, choice: world.pass_time(choice * 0.01),
    "long": lambda world, choice: world.pass_time(choice * 0.5),
}


async def _play(steps: list[tuple[str, int]], limits: list[int], gateways: int) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    world = DirectWorld(loop, limits, gateways)
    await world.warm_up()
    for kind, choice in steps:
        await settle()
        world.check()
        if (doing := _DO[kind](world, choice)) is not None:
            await doing
    await world.run_out()
    world.check_ends()
    await world.check_recovered()
    assert errors == []


def play(steps: list[tuple[str, int]], limits: list[int], gateways: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_play(steps, limits, gateways))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    _STEPS,
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
    st.integers(1, 2),
)
def test_any_interleaving_keeps_every_call_and_runs_none_too_often(
    steps: list[tuple[str, int]], limits: list[int], gateways: int
) -> None:
    play(steps, limits, gateways)


def test_a_call_that_waited_for_a_worker_which_stood_still_is_not_run_there() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_stand_still())


async def _stand_still() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    world = DirectWorld(loop, [1, 1], 1)
    await world.warm_up()
    call = world.gateways[0].call(b"POST")
    await settle()
    (paused,) = [w for w in world.workers if any(c.client.inbox for c in w.connections)]
    paused.is_paused = True
    for _ in range(40):
        world.pass_time(1.0)
        await settle()
        for move in world.moves():
            move()
        for run in world.runs():
            run.finish(0)
    assert call.is_over
    assert call.runs == 1
    paused.is_paused = False
    # Its timer comes before it reads its sockets.
    world.pass_time(0.1)
    await world.run_out()
    for _ in range(20):
        await settle()
        for move in world.moves():
            move()
    assert call.runs == 1
    await world.check_recovered()


def test_a_queued_response_that_is_lost_with_its_connection_and_its_worker_is_run_again() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_lose_a_queued_response())


async def _lose_a_queued_response() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    world = DirectWorld(loop, [1], 1)
    await world.warm_up()
    world.gateways[0].call(b"POST")
    queued = world.gateways[0].call(b"POST")
    for _ in range(20):
        await settle()
        for move in world.moves():
            move()
        if queued.runs:
            break
        for run in world.runs():
            run.finish(0)
    assert queued.was_published
    world.runs()[0].finish(0)
    await settle()
    # Everything arrives but the response.
    for to_broker in list(world.workers[0].to_broker):
        to_broker(world.broker)
    world.cut(world.workers[0])
    world.replace_worker(0)
    await world.run_out()
    world.check_ends()
    assert queued.runs == 2
    await world.check_recovered()
