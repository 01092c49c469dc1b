"""The ``process_`` metrics that every Prometheus client has, from /proc: empty where there is none.

https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

import os
from collections.abc import Iterator
from math import inf
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def process_lines() -> Iterator[str]:
    """Yield the lines of the exposition, newlines included."""
    try:
        # proc(5): the second field, the command, may contain blanks and parentheses.
        stat = (_PROC / "self/stat").read_text().rpartition(") ")[2].split()
        booted_s = _after((_PROC / "stat").read_text(), "btime ")
        limits = (_PROC / "self/limits").read_text()
        # One of them is that of the folder itself.
        open_files = len(os.listdir(_PROC / "self/fd")) - 1
    except OSError:
        return
    yield from _metric("virtual_memory_bytes", "gauge", "Virtual memory size", int(stat[20]))
    memory_bytes = int(stat[21]) * _PAGE_BYTES
    yield from _metric("resident_memory_bytes", "gauge", "Resident memory size", memory_bytes)
    started_s = booted_s + int(stat[19]) / _TICKS_PER_S
    yield from _metric("start_time_seconds", "gauge", "Start of the process, Unix time", started_s)
    cpu_s = (int(stat[11]) + int(stat[12])) / _TICKS_PER_S
    yield from _metric("cpu_seconds_total", "counter", "User and system CPU time", cpu_s)
    yield from _metric("open_fds", "gauge", "Open file descriptors", open_files)
    most_files = _after(limits, "Max open files")
    yield from _metric("max_fds", "gauge", "Most file descriptors that may be open", most_files)


def _metric(name: str, kind: str, help_text: str, value: float) -> Iterator[str]:
    name = f"process_{name}"
    number = "+Inf" if value == inf else value
    yield f"# HELP {name} {help_text}.\n# TYPE {name} {kind}\n{name} {number}\n"


def _after(text: str, name: str) -> float:
    """Return the first number of the line that begins with ``name``."""
    return float(text.partition(name)[2].split(maxsplit=1)[0].replace("unlimited", "inf"))
