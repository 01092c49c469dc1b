"""CPU time and memory of process trees, from /proc. Linux only."""

import itertools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


class Role(Enum):
    """The role of a process in the measured system; clients connect to ``FRONT``."""

    FRONT = "front"
    AGENT = "agent"
    BROKER = "broker"
    INFERENCE = "inference"
    OTHER = "other"


class Stat(NamedTuple):
    """Fields of /proc/<pid>/stat; ``start_ticks`` counts from the machine's boot."""

    pid: int
    parent: int
    state: str
    cpu_ticks: int
    rss_pages: int
    start_ticks: int = 0


class Process(NamedTuple):
    pid: int
    role: Role
    argv: tuple[str, ...]
    cpu_s: float
    rss_bytes: int


_BROKERS = frozenset({"nats-server", "valkey-server", "redis-server"})
_SERVERS = frozenset({"loadtests.peers.inference", "loadtests.peers.grpc_server"})


class ProcessesChangedError(Exception):
    """A process ended or appeared between two readings, so that their difference is not valid."""


def parse_stat(text: str) -> Stat:
    """Parse /proc/<pid>/stat (proc(5)). The command may contain blanks and parentheses."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    return Stat(
        int(pid),
        int(fields[1]),
        fields[0],
        int(fields[11]) + int(fields[12]),
        int(fields[21]),
        int(fields[19]),
    )


def started_at(pid: int) -> float:
    """Return the start of a running process in Unix seconds, with a resolution of 10 ms."""
    stat = parse_stat((_PROC / str(pid) / "stat").read_text())
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - stat.start_ticks * _TICK_S
    return time.time() - age_s


def role_of(argv: Sequence[str]) -> Role:
    """Return the role of a process by whole words of its command line.

    The arguments of `gateway dev` contain the inference server's command as one word, so that
    `gateway dev` itself is not mistaken for an inference server.
    """
    if not argv:
        return Role.OTHER
    names = [word.rpartition("/")[2] for word in argv]
    # Redis and Valkey write their address into their command line, after a blank.
    if names[0].partition(" ")[0] in _BROKERS:
        return Role.BROKER
    if names[0].startswith("nginx") or "loadtests.peers.proxy" in names:
        return Role.FRONT
    if not _SERVERS.isdisjoint(names):
        return Role.INFERENCE
    if "worker-agent" in names or "worker_agent" in names:
        return Role.AGENT
    pairs = itertools.pairwise(names)
    return Role.FRONT if ("gateway", "serve") in pairs else Role.OTHER


def is_dev(argv: Sequence[str]) -> bool:
    """Return whether a process is `gateway dev` itself, or what it becomes once all is started."""
    names = [word.rpartition("/")[2] for word in argv]
    return ("gateway", "dev") in itertools.pairwise(names)


def port_of(argv: Sequence[str]) -> int:
    """Return the value of ``--port``. Raises ValueError if there is none."""
    return int(argv[argv.index("--port") + 1])


def descendants(stats: Iterable[Stat], roots: Iterable[int]) -> list[Stat]:
    """Return the processes of the trees under ``roots``, parents before children."""
    by_parent: dict[int, list[Stat]] = {}
    by_pid: dict[int, Stat] = {}
    for stat in stats:
        by_parent.setdefault(stat.parent, []).append(stat)
        by_pid[stat.pid] = stat
    found = [by_pid[root] for root in roots if root in by_pid]
    for stat in found:  # the list grows during the loop
        found += by_parent.get(stat.pid, ())
    return found


def all_stats() -> list[Stat]:
    """Return every process of the machine, except those that end meanwhile."""
    stats = []
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            try:
                stats.append(parse_stat((folder / "stat").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return stats


def argv_of(pid: int) -> tuple[str, ...]:
    """Return the command line; empty for a process that has ended."""
    try:
        data = (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(data.rstrip(b"\0").decode(errors="replace").split("\0"))


def tree(roots: Iterable[int]) -> list[Process]:
    """Return the live processes under ``roots``.

    A process without a role of its own has that of its parent, so that forked or spawned children
    count as part of it.
    """
    roles: dict[int, Role] = {}
    processes = []
    for stat in descendants(all_stats(), roots):
        argv = argv_of(stat.pid)
        role = role_of(argv)
        if role is Role.OTHER:
            role = roles.get(stat.parent, Role.OTHER)
        roles[stat.pid] = role
        if stat.state != "Z":
            cpu_s, rss_bytes = stat.cpu_ticks * _TICK_S, stat.rss_pages * _PAGE_BYTES
            processes.append(Process(stat.pid, role, argv, cpu_s, rss_bytes))
    return processes


def rss_bytes(processes: Iterable[Process], role: Role) -> int:
    return sum(process.rss_bytes for process in processes if process.role is role)


class Memory(NamedTuple):
    """Resident memory in bytes; ``pss`` has of each page that several processes share its part."""

    rss: int
    pss: int


def parse_rollup(text: str) -> Memory:
    """Parse /proc/<pid>/smaps_rollup, which is exact; the RSS in ``stat`` may be 256 KiB off."""
    fields = dict(line.split()[:2] for line in text.splitlines()[1:])
    return Memory(int(fields["Rss:"]) * 1024, int(fields["Pss:"]) * 1024)


def memory_of(pids: Iterable[int]) -> Memory:
    """Return the sum over these processes."""
    read = [parse_rollup((_PROC / str(pid) / "smaps_rollup").read_text()) for pid in pids]
    return Memory(sum(each.rss for each in read), sum(each.pss for each in read))


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment with which a process was started."""
    pairs = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    named = (pair.decode(errors="replace").partition("=") for pair in pairs if pair)
    return {name: value for name, _, value in named}


def on_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process's first thread, to the nanosecond (sched-stats)."""
    return int((_PROC / str(pid) / "schedstat").read_text().split()[0]) / 1e9


def all_on_cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads that a process has now, to the nanosecond."""
    tasks = (_PROC / str(pid) / "task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def cpu_between(before: Iterable[Process], after: Iterable[Process]) -> Mapping[Role, float]:
    """Return the CPU seconds (user and system) that each role used, with a resolution of 10 ms.

    Raises ProcessesChangedError if a process with a role started or ended.
    """
    first = {each.pid: each for each in before if each.role is not Role.OTHER}
    last = {each.pid: each for each in after if each.role is not Role.OTHER}
    if first.keys() != last.keys():
        changed = [*first.values(), *last.values()]
        names = {" ".join(p.argv)[:80] for p in changed if (p.pid in first) != (p.pid in last)}
        raise ProcessesChangedError(f"came or went during the run: {', '.join(sorted(names))}")
    used: dict[Role, float] = {}
    for pid, process in last.items():
        used[process.role] = used.get(process.role, 0.0) + process.cpu_s - first[pid].cpu_s
    return used
