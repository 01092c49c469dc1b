"""`python -m loadtests.run`: measure the gateway and its peers, and print one table.

The same figures go into a JSON file. Exit code 0: every row was measured and every bar held; 1: a
row failed or a bar was missed; 2: nothing could be measured.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from loadtests import generators, systems
from loadtests.bars import judge
from loadtests.children import Children, StartError
from loadtests.errors import MeasurementError
from loadtests.figures import (
    BACKENDS,
    BEFORE,
    GATEWAY_10,
    NGINX,
    ROWS,
    SYSTEMS,
    Results,
    is_measured,
)
from loadtests.proc import ProcessesChangedError
from loadtests.revision import RevisionError, extract
from loadtests.scenarios import queued as in_line
from loadtests.scenarios.channels import channels
from loadtests.scenarios.grpc import grpc
from loadtests.scenarios.held import held
from loadtests.scenarios.http2 import http2
from loadtests.scenarios.idle import idle
from loadtests.scenarios.leave import leave
from loadtests.scenarios.many import many
from loadtests.scenarios.small import latency, throughput, warm_up
from loadtests.scenarios.sse import sse
from loadtests.scenarios.streams import streams
from loadtests.scenarios.transfer import transfer
from loadtests.scenarios.websockets import WEBSOCKETS, websockets
from loadtests.systems import Target
from loadtests.table import document, render

# A proxy needs two descriptors per waiting request, and every process some in addition.
_SPARE_DESCRIPTORS = 500
_HELD = "held"
_IDLE = "idle"
_MANY = "many"
_QUEUED = "queued"
_STREAMS = "streams"
_WEBSOCKETS = "websockets"
_FRESH = ((systems.SLOTS, (_IDLE, _HELD, _STREAMS)), (WEBSOCKETS, (_WEBSOCKETS,)))
"""Rows of memory, each round on fresh processes with so many slots, in this order."""
_REST_S = 0.3
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. Durations are seconds, each after its own warm-up."""

    systems: tuple[str, ...]
    rows: tuple[str, ...]
    rounds: int
    held: int
    latency_s: float
    throughput_s: int
    queued_s: float
    sse_s: float
    leaving: int
    channels_s: float
    generator: str
    functions: int
    against: str


class CannotMeasureError(Exception):
    """A requirement of the run is missing; the message says which, and how to get it."""


class Run:
    """One run: starts the systems, measures round by round, collects the results."""

    def __init__(self, plan: Plan, children: Children, folder: Path) -> None:
        self.results = Results()
        self.notes: list[str] = []
        self._plan = plan
        self._children = children
        self._folder = folder
        self.before = folder / "before"
        self._rows: dict[str, Callable[[Target], dict[str, float]]] = {
            "latency": lambda target: latency(target, plan.latency_s),
            "throughput": lambda target: throughput(
                target, plan.generator, plan.throughput_s, folder
            ),
            "http2": lambda target: http2(target, plan.throughput_s, folder),
            "grpc": lambda target: grpc(target, children, plan.throughput_s, folder),
            _QUEUED: lambda target: in_line.queued(target, plan.queued_s),
            "leave": lambda target: leave(target, plan.leaving),
            "sse": lambda target: sse(target, plan.sse_s),
            "transfer": transfer,
            _IDLE: lambda target: idle(target, children),
            _HELD: lambda target: held(target, plan.held),
            _STREAMS: lambda target: streams(target, plan.sse_s),
            _WEBSOCKETS: websockets,
            "channels": lambda _: channels(children, plan.channels_s),
            _MANY: many,
        }

    def go(self) -> None:
        """Measure all rows, those of memory last.

        In each row of each round the systems are measured one after the other, so that noise on the
        machine affects all of them.
        """
        rows = self._plan.rows
        apart = {_QUEUED}.union(*(fresh for _, fresh in _FRESH))
        self._share([row for row in rows if row not in apart], systems.SLOTS)
        self._share([row for row in rows if row == _QUEUED], in_line.SLOTS)
        for number in range(1, self._plan.rounds + 1):
            for system in _rotate(self._plan.systems, number):
                for slots, rows in _FRESH:
                    self._measure_fresh(number, system, slots, rows)

    def _share(self, rows: Sequence[str], slots: int) -> None:
        """Measure rows on the same processes in all rounds, gateways with this concurrency."""
        with ExitStack() as stack:
            targets = self._start_all(stack, rows, slots)
            for number in range(1, self._plan.rounds + 1):
                for row in rows:
                    for target in _rotate(targets, number):
                        if is_measured(row, target.name):
                            self._measure(number, row, target)

    def _start_all(self, stack: ExitStack, rows: Sequence[str], slots: int) -> list[Target]:
        """Start the systems for which one of these rows is measured."""
        targets = []
        for system in self._plan.systems:
            measured = [row for row in rows if is_measured(row, system)]
            if not measured:
                continue
            _print(f"starting {system}")
            try:
                target = stack.enter_context(
                    systems.running(
                        system,
                        self._children,
                        self.notes.append,
                        self._plan.functions,
                        self.before,
                        slots,
                    )
                )
                warm_up(target)
            except (StartError, MeasurementError) as error:
                self._record_failed_start(1, system, measured, error)
            else:
                targets.append(target)
        return targets

    def _measure_fresh(self, number: int, system: str, slots: int, wanted: Sequence[str]) -> None:
        rows = [
            row
            for row in wanted
            if row in self._plan.rows
            and is_measured(row, system)
            and not self.results.failed(system, row)
        ]
        if not rows:
            return
        try:
            with systems.running(
                system, self._children, self.notes.append, before=self.before, slots=slots
            ) as target:
                for row in rows:
                    self._measure(number, row, target)
        except StartError as error:
            self._record_failed_start(number, system, rows, error)

    def _record_failed_start(
        self, number: int, system: str, rows: Sequence[str], error: Exception
    ) -> None:
        _print(f"{system} did not start: {error}")
        for row in rows:
            self.results.fail(number, system, row, f"did not start: {str(error).splitlines()[0]}")

    def _measure(self, number: int, row: str, target: Target) -> None:
        if self.results.failed(target.name, row):
            return
        label = f"round {number}/{self._plan.rounds}  {row:<10}  {target.name:<8}"
        time.sleep(_REST_S)
        try:
            figures = self._rows[row](target)
        except (MeasurementError, ProcessesChangedError, StartError, OSError) as error:
            _print(f"{label}  FAILED: {error}")
            self.results.fail(number, target.name, row, str(error))
        else:
            shown = "  ".join(f"{key} {value:,.1f}" for key, value in figures.items())
            _print(f"{label}  {shown}")
            self.results.add(number, target.name, figures)


def _rotate(items: Sequence[_T], number: int) -> list[_T]:
    """Return the items rotated by round, so that no system is always measured first."""
    first = (number - 1) % len(items) if items else 0
    return [*items[first:], *items[:first]]


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.run",
        description="Measure the gateway and its peers on this machine, all on loopback.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round, for a first look")
    parser.add_argument(
        "--only", action="append", choices=[*ROWS], metavar="ROW", help=f"of {', '.join(ROWS)}"
    )
    parser.add_argument(
        "--system",
        action="append",
        choices=[name for name in SYSTEMS if name not in BACKENDS],
        help="measure only these; may be repeated",
    )
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 1")
    parser.add_argument("--held", type=int, default=5000, help="requests held open (5000)")
    parser.add_argument(
        "--functions",
        type=int,
        default=0,
        metavar="N",
        help="functions in the store: measures lists, memory and restart, beside 10 functions",
    )
    parser.add_argument(
        "--against",
        default="",
        metavar="REVISION",
        help="measure the gateway of this git revision beside this one, and compare the two",
    )
    parser.add_argument(
        "--queue",
        choices=["redis"],
        help="measure the gateway with every call through a queue on Redis beside one on NATS, and "
        "compare the two; without --system nothing else",
    )
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), metavar="FILE")
    return parser.parse_args(words)


def _plan(arguments: argparse.Namespace) -> tuple[Plan, list[str]]:
    """Return the plan and notes about what was left out. Raises CannotMeasureError."""
    rows = tuple(row for row in ROWS if row in (arguments.only or ROWS))
    chosen = _systems(arguments)
    if arguments.functions:
        chosen = tuple(name for name in SYSTEMS if name in {*chosen, GATEWAY_10})
    else:
        rows = tuple(row for row in rows if row != _MANY)
        chosen = tuple(name for name in chosen if name != GATEWAY_10)
    if arguments.against:
        chosen = tuple(name for name in SYSTEMS if name in {*chosen, BEFORE})
    else:
        chosen = tuple(name for name in chosen if name != BEFORE)
    notes = []
    if NGINX in chosen and systems.nginx_binary() is None:
        chosen = tuple(name for name in chosen if name != NGINX)
        notes.append("nginx is not installed and was left out")
    generator = generators.find()
    if "throughput" in rows and generator is None:
        raise CannotMeasureError(generators.HOW_TO_GET)
    descriptors = _raise_descriptor_limit()
    if _HELD in rows and descriptors < 2 * arguments.held + _SPARE_DESCRIPTORS:
        raise CannotMeasureError(
            f"--held {arguments.held} needs {2 * arguments.held + _SPARE_DESCRIPTORS} open files "
            f"per process, the limit here is {descriptors} (ulimit -Hn)"
        )
    quick = arguments.quick
    plan = Plan(
        systems=chosen,
        rows=rows,
        rounds=arguments.rounds or (1 if quick else 3),
        held=arguments.held,
        latency_s=1.0 if quick else 3.0,
        throughput_s=2 if quick else 6,
        queued_s=3.0 if quick else 6.0,
        sse_s=2.0 if quick else 5.0,
        leaving=10 if quick else 50,
        channels_s=15.0 if quick else 60.0,
        generator=generator or "",
        functions=arguments.functions,
        against=arguments.against,
    )
    return plan, notes


def _systems(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the systems that the options name, those of ``--queue`` only with it."""
    others = [name for name in SYSTEMS if name not in BACKENDS]
    if arguments.queue:
        wanted = {*(arguments.system or ()), *BACKENDS}
    else:
        wanted = set(arguments.system or others) - set(BACKENDS)
    return tuple(name for name in SYSTEMS if name in wanted)


def _raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to the hard limit, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return ""
    return done.stdout.strip()


def _about(plan: Plan, notes: Sequence[str], load: float) -> dict[str, Any]:
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _output(["git", "describe", "--always", "--dirty", "--abbrev=12"]),
        "machine": {
            "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load_before": load,
        },
        "plan": {name: getattr(plan, name) for name in plan.__slots__},
        "notes": list(notes),
    }


def _headline(about: dict[str, Any]) -> str:
    machine, plan = about["machine"], about["plan"]
    rounds = f"{plan['rounds']} round{'s' if plan['rounds'] > 1 else ''}"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}, load before {machine['load_before']:.2f}\n"
        f"{rounds}; median (lowest..highest)"
    )


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    load = os.getloadavg()[0]
    try:
        plan, notes = _plan(arguments)
    except CannotMeasureError as error:
        print(error, file=sys.stderr)
        return 2
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="bench-") as folder,
        Children(arguments.json.parent / "bench-logs") as children,
    ):
        run = Run(plan, children, Path(folder))
        try:
            if plan.against:
                extract(plan.against, run.before)
        except RevisionError as error:
            print(error, file=sys.stderr)
            return 2
        run.go()
    verdicts = judge(run.results)
    about = _about(plan, [*notes, *run.notes], load)
    found = document(run.results, verdicts, about)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{_headline(about)}\n\n{render(run.results, verdicts)}")
    for note in about["notes"]:
        print(f"Note: {note}")
    print(f"\nThe same as JSON: {arguments.json}")
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
