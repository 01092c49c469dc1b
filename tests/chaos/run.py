"""Run the system under load and faults, and check its history: ``python -m tests.chaos.run``.

Exit status 0: no check was violated; 1: some were, which the output shows. See docs/chaos.md.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.tasks import spawn
from tests.chaos.checks import violations_of
from tests.chaos.client import Client
from tests.chaos.executor import Executor
from tests.chaos.history import Call, Gauge, History, Run
from tests.chaos.load import sessions
from tests.chaos.plan import PlannedFault, faults, fixed_faults
from tests.chaos.report import Clock, Lines, figures, findings
from tests.chaos.world import IDLE_S, LAYOUTS, World, running_world, settled

WARM_UP_S = 2.0
WARM_UP_SEED = 0
FIRST_WARM_UP_CALL = 1_000_000
SETTLE_S = 70.0
"""What is left as long after the last call stays: a vanished peer is noticed within 60 s."""
SHORT_S = 28.0
"""Duration of the run with the fixed faults, which end before it."""


async def load(world: World, seed: int, duration_s: float, first: int = 1) -> list[Call]:
    """Make calls for ``duration_s`` seconds; return them when all have ended."""
    calls: list[Call] = []
    tasks: list[asyncio.Task[None]] = []
    started_at = time.monotonic()
    for session in sessions(seed, tuple(world.layout.agents), world.layout.gateways, first):
        if session.after_s >= duration_s:
            break
        await asyncio.sleep(started_at + session.after_s - time.monotonic())
        client = Client(session, world.targets[session.function], calls)
        tasks.append(spawn(client.run(), "session"))
    await asyncio.gather(*tasks)
    return calls


async def run(
    world: World, seed: int, duration_s: float, planned: list[PlannedFault]
) -> tuple[History, Clock]:
    """Run load and faults; return what happened."""
    warm_up = await load(world, WARM_UP_SEED, WARM_UP_S, FIRST_WARM_UP_CALL)
    # Connections that nothing uses are closed in this time.
    await asyncio.sleep(IDLE_S + 1)
    world.take_baseline()
    started_at = time.monotonic()
    clock = Clock(started_at, time.time() - started_at)
    executor = Executor(world)
    executor.begin(planned, started_at)
    calls = await load(world, seed, duration_s)
    await executor.heal()
    gauges = [*vacuity(calls, executor, planned), *await settled(world, SETTLE_S)]
    runs = read_runs(world)
    history = History(
        layout=world.layout,
        calls=with_gateway_heads(world, [*warm_up, *calls], runs, clock),
        runs=runs,
        faults=sorted(executor.faults, key=lambda fault: fault.began_at),
        gauges=[*gauges, *executor.failures],
        agent_starts={agent: world.parts[agent].starts for agent in world.layout.servers},
    )
    return history, clock


def vacuity(calls: list[Call], executor: Executor, planned: list[PlannedFault]) -> list[Gauge]:
    """Return what shows that the run tested something: calls succeeded, and all faults happened."""
    failed = sum(call.status not in (200, 422) for call in calls)
    missing = sum(len(fault.targets) for fault in planned) - len(executor.faults)
    return [
        Gauge("clients", "calls that failed", failed, len(calls) // 2),
        Gauge("faults", "planned and not done", missing, 0),
    ]


def read_runs(world: World) -> list[Run]:
    """Read what the inference servers recorded; a killed server ends its runs."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for line in world.run_log.read_text().splitlines():
        entry = json.loads(line)
        key = entry["pid"], entry["run"]
        what, at = entry["event"], entry["at"]
        if what == "start":
            died_at = world.parts[entry["server"]].deaths.get(entry["pid"], 0.0)
            found[key] = {
                "number": entry["number"],
                "server": entry["server"],
                "pid": entry["pid"],
                "started_at": at,
                "request_id": entry["id"],
                "ended_at": died_at,
                "how": "is killed" if died_at else "",
            }
        elif what == "first":
            found[key]["first_at"] = at
        elif what == "foreign":
            found[key]["foreign"] = entry["found"]
        else:
            found[key].update(ended_at=at, how=f"{what}s")
    return [Run(**values) for values in found.values()]


def with_gateway_heads(
    world: World, calls: list[Call], runs: list[Run], clock: Clock
) -> list[Call]:
    """Add when the gateways had the response heads, from their access lines."""
    ids = {run.number: run.request_id for run in runs}
    heads: dict[str, float] = {}
    for name in world.layout.gateways:
        for line in world.parts[name].lines_with('"event":"invocation.finished"'):
            entry = json.loads(line)
            if entry["ttfb_ms"] >= 0:
                ended_at = clock.monotonic_of(entry["ts"])
                # The time stamp is cut off after the milliseconds.
                head_at = ended_at + 0.001 - (entry["total_ms"] - entry["ttfb_ms"]) / 1000
                heads[entry["request_id"]] = head_at
    return [
        replace(
            call,
            request_id=call.request_id or ids.get(call.number, ""),
            gateway_head_at=heads.get(ids.get(call.number, ""), 0.0),
        )
        for call in calls
    ]


def lines_about(world: World, history: History, numbers: set[int]) -> Mapping[int, Lines]:
    """Return the log lines about calls: those with the id of their request."""
    found: dict[int, Lines] = {}
    for call in history.calls:
        if call.number in numbers and call.request_id:
            found[call.number] = {
                name: [line for line in part.lines_with(call.request_id) if '"ts"' in line]
                for name, part in world.parts.items()
            }
    return found


async def main(minutes: float | None, seed: int, queue: str, queue_storage: str) -> int:
    """Run once and print the outcome; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        async with running_world(Path(folder), queue, queue_storage) as world:
            layout = world.layout
            if minutes is None:
                duration_s, planned = SHORT_S, fixed_faults(layout, world.links)
            else:
                duration_s = 60 * minutes
                planned = faults(seed, layout, world.links, duration_s)
            write(f"seed {seed}, {duration_s:g} s, queue {queue}, queues in {queue_storage}")
            if world.why_no_cuts:
                write(f"not permitted here: cuts are skipped ({world.why_no_cuts})")
            history, clock = await run(world, seed, duration_s, planned)
            violations = violations_of(history)
            numbers = {number for one in violations for number in one.numbers}
            write(findings(history, violations, clock, lines_about(world, history, numbers)))
            write(figures(history, violations, seed))
    return 1 if violations else 0


def write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run")
    parser.add_argument("--minutes", type=float, help="default: half a minute with fixed faults")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--queue", choices=tuple(LAYOUTS), default="nats")
    parser.add_argument("--queues", choices=("memory", "file"), default="memory")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    sys.exit(asyncio.run(main(given.minutes, given.seed, given.queue, given.queues)))
