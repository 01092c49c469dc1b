"""The ends of the log files of child processes, for messages."""

import os
from collections.abc import Sequence
from pathlib import Path

_LAST_LINES = 12
_TAIL_BYTES = 8192


def end_of(log: Path) -> list[str]:
    """Return the last lines of a log, at most `_TAIL_BYTES`; none if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def indented(lines: Sequence[str]) -> str:
    """Return the last of ``lines`` for a message."""
    return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])


def exit_report(name: str, code: int | None, log: Path) -> str:
    """Return the exit code of a process and the last lines of its log, for a message."""
    return f"{name} ended with code {code}\n{indented(end_of(log))}"
