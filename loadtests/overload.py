"""`python -m loadtests.overload`: goodput at 1.25, 2 and 10 times the capacity, as one table.

Calls come in an open loop: at fixed times, whatever became of the earlier ones. The capacity is
measured before, by as many clients as keep every slot busy. Exit code 0: every goodput was at least
`BAR` of it, and no refusal was without ``Retry-After``.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from loadtests.children import Children
from runtime.tasks import spawn

BAR = 0.95
FACTORS = (1.25, 2.0, 10.0)
_SLOTS = 4
_START_S = 60.0
_TURN_S = 0.005


@dataclass(frozen=True, slots=True)
class Length:
    """Calls of one length: how long each works, its poll window, and how long to measure."""

    service_ms: int
    poll_s: int
    measured_s: float


LENGTHS = (Length(100, 3, 15.0), Length(2000, 10, 60.0))


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call; ``at`` is monotonic time, ``status`` 0 if the connection broke."""

    at: float
    status: int
    took_s: float
    has_retry_after: bool


@dataclass(slots=True)
class Load:
    """Calls to one function through the gateway at ``port``."""

    port: int
    head: bytes
    answers: list[Answer] = field(default_factory=list)

    async def call(self) -> None:
        """Make one call on a connection of its own."""
        began = time.monotonic()
        status, has_retry_after = 0, False
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(self.head)
            response = await reader.readuntil(b"\r\n\r\n")
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass
        else:
            status = int(response.split(b" ", 2)[1])
            has_retry_after = b"\r\nretry-after:" in response.lower()
        now = time.monotonic()
        self.answers.append(Answer(now, status, now - began, has_retry_after))

    async def closed(self, clients: int, until: float) -> None:
        """Keep ``clients`` calls in progress until the time ``until``."""

        async def one() -> None:
            while time.monotonic() < until:
                await self.call()

        await asyncio.gather(*(one() for _ in range(clients)))

    async def open(self, rate: float, until: float) -> None:
        """Make ``rate`` calls per second until the time ``until``; wait for the last answer."""
        began, made, calls = time.monotonic(), 0, []
        while (now := time.monotonic()) < until:
            while made < (now - began) * rate:
                made += 1
                calls.append(spawn(self.call(), "call"))
            await asyncio.sleep(_TURN_S)
        await asyncio.gather(*calls)

    def rate(self, is_counted: Callable[[Answer], bool], since: float, until: float) -> float:
        """Return the number of counted answers per second."""
        counted = sum(is_counted(each) and since <= each.at < until for each in self.answers)
        return counted / (until - since)


def _head(ready: dict[str, str], length: Length) -> bytes:
    return (
        f"POST /wait?ms={length.service_ms} HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {ready['api_key']}\r\nfunction-id: {ready['function_id']}\r\n"
        f"nvcf-poll-seconds: {length.poll_s}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ).encode()


async def _measure(ready: dict[str, str], length: Length, factors: Sequence[float]) -> bool:
    """Print one line of the table for each factor; return whether all are good."""
    port = urlsplit(ready["invocation_url"]).port or 80
    service_s = length.service_ms / 1000
    warm = Load(port, _head(ready, length))
    began = time.monotonic()
    ends = began + max(4.0, 8 * service_s)
    await warm.closed(2 * _SLOTS, ends)
    capacity = warm.rate(lambda each: each.status == 200, began + 2 * service_s, ends)
    is_good = True
    for factor in factors:
        load = Load(port, _head(ready, length))
        # The line is full after about one window; only then the load is an overload for sure.
        begins = time.monotonic() + length.poll_s
        ends = begins + length.measured_s
        await load.open(factor * capacity, ends)
        rates = [
            load.rate(lambda each, status=status: each.status == status, begins, ends)  # type: ignore[misc]
            for status in (200, 429, 504)
        ]
        others = sum(each.status not in {200, 429, 504} for each in load.answers)
        untold = sum(each.status != 200 and not each.has_retry_after for each in load.answers)
        refused = sorted(each.took_s for each in load.answers if each.status == 429)
        goodput = rates[0] / capacity
        is_good = is_good and goodput >= BAR and not untold and not others
        _print(
            f"{length.service_ms:>7} ms {length.poll_s:>4} s {factor:>6g} {factor * capacity:>8.1f}"
            f" {rates[0]:>8.1f} {100 * goodput:>7.1f} % {rates[1]:>8.1f} {rates[2]:>6.1f}"
            f" {others:>6} {untold:>7} {1000 * _median(refused):>8.1f} ms"
        )
    return is_good


def _median(values: Sequence[float]) -> float:
    return values[len(values) // 2] if values else 0.0


def _print(text: str) -> None:
    print(text, flush=True)


async def _run(ready: dict[str, str], factors: Sequence[float]) -> bool:
    _print(f"{_SLOTS} slots, calls on connections of their own, per second\n")
    _print(
        "   length window  times  offered answered  goodput  429      504  other  untold  429 after"
    )
    measured: list[Coroutine[None, None, bool]] = [
        _measure(ready, length, factors) for length in LENGTHS
    ]
    return all([await each for each in measured])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.overload", description=__doc__)
    parser.add_argument("--factor", type=float, action="append", help="of 1.25, 2 and 10")
    parser.add_argument("--logs", type=Path, default=Path("build/overload-logs"))
    arguments = parser.parse_args(words)
    with TemporaryDirectory(prefix="overload-") as folder, Children(arguments.logs) as children:
        ready_file = Path(folder) / "ready.json"
        inference = f"{sys.executable} -m loadtests.peers.inference --port {{port}}"
        command = [sys.executable, "-m", "gateway", "dev", "--port", "0", "--ready-file"]
        command += [str(ready_file), "--inference-command", inference]
        command += ["--concurrency", str(_SLOTS), "--data-dir", str(Path(folder) / "data")]
        child = children.start("gateway-dev", command)
        child.wait_until(ready_file.exists, _START_S)
        ready = json.loads(ready_file.read_text())
        is_good = asyncio.run(_run(ready, arguments.factor or FACTORS))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
