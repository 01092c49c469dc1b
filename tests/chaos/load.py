"""The calls of a run, planned from its seed. Pure.

Call ``n`` of a seed is always the same request, whatever happens around it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

from tests.chaos.history import Kind
from tests.chaos.payloads import event, payload, receipt, target

RATE_PER_S = 14.0
"""Calls per second; about a half of what all inference servers can take."""

WEIGHTS: Mapping[Kind, int] = {
    Kind.SMALL: 28,
    Kind.GET: 10,
    Kind.HEAD: 5,
    Kind.UPLOAD: 8,
    Kind.LARGE_UPLOAD: 8,
    Kind.CHUNKED_UPLOAD: 7,
    Kind.SLOW_UPLOAD: 5,
    Kind.STREAM: 13,
    Kind.SLOW: 8,
    Kind.DOWNLOAD: 5,
    Kind.ERROR: 3,
}
WINDOWS_S = (1, 3, 5, 10)
LEAVING = 0.12
"""Share of the calls whose client leaves after a moment."""
KEPT, PIPELINED = 0.2, 0.08
"""Shares of connections that are used for several calls, one after the other or at once."""
BURST_EVERY_S, BURST = 5.75, 16
"""As often, so many slow calls begin at once, for each function in turn: some have to wait."""
_KIBIBYTE = 1 << 10
_BODILESS = frozenset({Kind.GET, Kind.HEAD, Kind.STREAM, Kind.SLOW, Kind.DOWNLOAD, Kind.ERROR})
_PIPELINED = (Kind.GET, Kind.GET, Kind.SMALL)


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One request. ``leaves_s`` is when its client leaves, None if it stays.

    ``body_parts`` are written one by one, ``part_pause_s`` apart.
    """

    number: int
    kind: Kind
    window_s: float
    parameters: Mapping[str, int] = field(default_factory=dict)
    body_bytes: int = 0
    body_parts: int = 1
    part_pause_s: float = 0.0
    is_chunked: bool = False
    leaves_s: float | None = None

    @property
    def method(self) -> str:
        if self.kind is Kind.HEAD:
            return "HEAD"
        return "GET" if self.kind in _BODILESS else "POST"

    @property
    def target(self) -> str:
        behaviour = {
            Kind.STREAM: "stream",
            Kind.DOWNLOAD: "download",
            Kind.ERROR: "error",
            Kind.SLOW: "slow",
        }.get(self.kind, "small")
        return target(self.number, behaviour, self.parameters)

    @property
    def body(self) -> bytes:
        return payload(self.number, self.body_bytes)

    @property
    def response(self) -> bytes:
        """The whole body of the right response; a HEAD gets none."""
        if self.kind is Kind.STREAM:
            return b"".join(event(self.number, i) for i in range(self.parameters["events"]))
        if self.kind is Kind.DOWNLOAD:
            return payload(self.number, self.parameters["bytes"])
        return receipt(self.number, self.body)

    @property
    def paced_s(self) -> float:
        """How long request and response take by plan."""
        events = self.parameters.get("events", 1)
        response_s = events * self.parameters.get("ms", 0) / 1000
        return response_s + (self.body_parts - 1) * self.part_pause_s


@dataclass(frozen=True, slots=True)
class Session:
    """The calls on one connection, ``after_s`` after the start of the load."""

    after_s: float
    function: str
    gateway: str
    calls: tuple[PlannedCall, ...]
    is_pipelined: bool = False


def sessions(
    seed: int, functions: tuple[str, ...], gateways: tuple[str, ...], first: int = 1
) -> Iterator[Session]:
    """Yield the sessions of a seed without end; the first call has the number ``first``."""
    random = Random(f"load {seed} {first}")
    numbers = count(first)
    after_s = 0.0
    bursts = 0
    while True:
        while after_s >= (bursts + 1) * BURST_EVERY_S:
            bursts += 1
            for _ in range(BURST):
                slow = replace(_planned(next(numbers), Kind.SLOW, random), window_s=WINDOWS_S[-1])
                yield Session(
                    bursts * BURST_EVERY_S,
                    functions[(bursts - 1) % len(functions)],
                    random.choice(gateways),
                    (replace(slow, leaves_s=None),),
                )
        share = random.random()
        is_pipelined = share < PIPELINED
        size = 3 if share < PIPELINED + KEPT else 1
        kinds = (
            random.choices(_PIPELINED, k=size)
            if is_pipelined
            else random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=size)
        )
        calls = tuple(_planned(next(numbers), kind, random) for kind in kinds)
        yield Session(
            after_s, random.choice(functions), random.choice(gateways), calls, is_pipelined
        )
        after_s += random.expovariate(RATE_PER_S) * size


def _planned(number: int, kind: Kind, random: Random) -> PlannedCall:
    parameters: dict[str, int] = {}
    body_bytes, body_parts, part_pause_s = 0, 1, 0.0
    if kind is Kind.SMALL:
        body_bytes = random.randrange(_KIBIBYTE)
        parameters = {"ms": random.choice((0, 0, 5, 20, 100))}
    elif kind is Kind.UPLOAD:
        body_bytes = random.randrange(1, 32 * _KIBIBYTE)
    elif kind in (Kind.LARGE_UPLOAD, Kind.CHUNKED_UPLOAD):
        body_bytes = random.randrange(33, 512) * _KIBIBYTE
        body_parts = random.randrange(1, 9)
    elif kind is Kind.SLOW_UPLOAD:
        body_bytes = random.choice((2, 40, 200)) * _KIBIBYTE
        body_parts, part_pause_s = random.randrange(3, 7), random.uniform(0.05, 0.3)
    elif kind is Kind.STREAM:
        parameters = {"events": random.randrange(2, 40), "ms": random.choice((0, 10, 50))}
    elif kind is Kind.SLOW:
        parameters = {"ms": random.randrange(200, 1500)}
    elif kind is Kind.DOWNLOAD:
        parameters = {"bytes": random.randrange(64, 1024) * _KIBIBYTE}
    return PlannedCall(
        number,
        kind,
        random.choice(WINDOWS_S),
        parameters,
        body_bytes,
        body_parts,
        part_pause_s,
        kind is Kind.CHUNKED_UPLOAD or (kind is Kind.SLOW_UPLOAD and random.random() < 0.5),
        random.expovariate(3) if random.random() < LEAVING else None,
    )
