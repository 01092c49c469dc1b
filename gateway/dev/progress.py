"""Says every few seconds what `gateway dev` waits for, so that no start is a silent one.

A server that loads a model is shown with the last line that it wrote, and with what its health
check finds. Both are read from the logs of its instance.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway.dev.log_ends import end_of, indented
from runtime.lifecycle import Ticker

EVERY_S = 4.0
MAX_SHOWN_CHARS = 160
"""A longer last line is cut: it may be a whole table or a base64 text."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
"""Escape sequences of terminals: colours, cursor movements, titles."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@contextmanager
def telling(
    say: Callable[[str], None], describe: Callable[[float], Iterable[str]]
) -> Iterator[None]:
    """Say the lines of ``describe`` every `EVERY_S` seconds while the block runs.

    ``describe`` gets the seconds since the block began.
    """
    clock = asyncio.get_running_loop().time
    began = clock()

    def tell() -> None:
        for line in describe(clock() - began):
            say(line)

    ticker = Ticker(EVERY_S, tell)
    ticker.start()
    try:
        yield
    finally:
        ticker.stop()


def last_text(lines: Sequence[str]) -> str:
    """Return the last text in ``lines`` that a terminal would show, in at most one short line.

    A progress bar redraws its line with carriage returns; the last drawing counts.
    """
    for line in reversed(lines):
        for drawing in reversed(line.split("\r")):
            text = _CONTROLS.sub(" ", _ESCAPES.sub("", drawing)).strip()
            if text:
                return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
    return ""


class LoadingServer:
    """The server of a function until it is healthy, as its instance's logs show it."""

    def __init__(self, name: str, health_check: str, *, runs_already: bool) -> None:
        """``health_check`` is what it is asked, such as ``GET /health``."""
        self._name = name
        self._health_check = health_check
        self._runs_already = runs_already
        self._logs: Path | None = None
        self._output: list[str] = []
        self._finding = ""

    def follow(self, folder: Path, instance_ids: Iterable[str]) -> None:
        """Read the logs of the newest of these instances, which are somewhere below ``folder``."""
        for instance_id in instance_ids:
            found = next(folder.glob(f"*/{instance_id}"), None)
            if found is not None:
                self._logs = found
        if self._logs is None:
            return
        # An instance that has failed takes its logs with it: what was read last is kept.
        self._output = end_of(self._logs / "inference.log") or self._output
        self._finding = _last_finding(end_of(self._logs / "worker.log")) or self._finding

    def describe(self, elapsed_s: float) -> str:
        """Return one line on how far it is, ``elapsed_s`` seconds after the start."""
        if self._runs_already:
            return f"waiting for {self._name} ({elapsed_s:.0f} s): {self.finding()}"
        shown = last_text(self._output) or "no output yet"
        return f"{self._name} is starting ({elapsed_s:.0f} s; {self.finding()}): {shown}"

    def finding(self) -> str:
        """Return what its health check finds."""
        return f"{self._health_check}: {self._finding or 'not asked yet'}"

    def tail(self) -> str:
        """Return the last lines of its output, indented, each a line of text."""
        return indented([text for line in self._output if (text := last_text([line]))])


def _last_finding(lines: Sequence[str]) -> str:
    """Return the reason in the agent's last line about a server that is not healthy yet."""
    for line in reversed(lines):
        if '"event":"inference.loading"' in line:
            try:
                return str(json.loads(line)["reason"])
            except (ValueError, KeyError):
                continue
    return ""
