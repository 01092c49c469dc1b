"""What happened in one run, as the clients, the inference servers and the faults' executor saw it.

Pure records. Every time is of this machine's monotonic clock, in seconds, which all its processes
share; 0.0 means never.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property


class Kind(StrEnum):
    """What a client asks for. The inference server behaves accordingly."""

    SMALL = "small"
    GET = "get"
    HEAD = "head"
    UPLOAD = "upload"
    LARGE_UPLOAD = "large upload"
    CHUNKED_UPLOAD = "chunked upload"
    SLOW_UPLOAD = "slow upload"
    STREAM = "stream"
    SLOW = "slow"
    DOWNLOAD = "download"
    ERROR = "error"


class End(StrEnum):
    """How a call ended for its client."""

    WHOLE = "whole"
    """The response was complete by its framing."""
    CUT = "cut"
    """The connection ended before the response did, visibly."""
    STALE = "stale"
    """A kept connection was closed before a byte of the response to a further request."""
    REFUSED = "refused"
    """No gateway accepted the connection."""
    LEFT = "left"
    """The client left, as it had planned."""
    GAVE_UP = "gave up"
    """Nothing ended the call; the harness did."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a client.

    ``paced_s`` is how long its request and its response take by plan, ``head_at`` when the response
    head was seen, ``gateway_head_at`` when the gateway had it, as its access line says.
    ``is_served`` says that the response is an inference server's. ``foreign`` describes data of
    another call, ``missing`` what a response that looked complete lacks; both are normally empty.
    """

    number: int
    kind: Kind
    function: str
    gateway: str
    window_s: float
    paced_s: float
    started_at: float
    ended_at: float
    end: End
    status: int = 0
    reason: str = ""
    head_at: float = 0.0
    gateway_head_at: float = 0.0
    is_served: bool = False
    foreign: str = ""
    missing: str = ""
    request_id: str = ""

    @property
    def outcome(self) -> str:
        """The status of a whole response, otherwise the kind of end."""
        if self.end is not End.WHOLE:
            return "cut in body" if self.end is End.CUT and self.head_at else self.end.value
        return f"{self.status} {self.reason}".strip() if not self.is_served else str(self.status)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution at an inference server, from the request head to the last byte or its death."""

    number: int
    server: str
    pid: int
    started_at: float
    first_at: float = 0.0
    ended_at: float = 0.0
    how: str = ""
    request_id: str = ""
    foreign: str = ""


class FaultKind(StrEnum):
    """What is done to a part of the system."""

    KILL = "kill"
    """SIGKILL, and a new process after a moment."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT after a moment."""
    RESTART = "restart"
    """SIGTERM, and a new process when the old one has ended."""
    CUT = "cut"
    """Its link loses every frame."""
    FAILOVER = "failover"
    """Sentinels are told to make the replica the master."""
    DISCONNECT = "disconnect"
    """The server ends connections."""
    FLUSH = "flush"
    """The server forgets all scripts."""
    BUSY = "busy"
    """A script runs for long and is killed: the server refuses everything meanwhile."""
    FULL = "full"
    """The server has no memory left."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; ``target`` is a part, ``link`` the cut link, ``ended_at`` when it had healed."""

    kind: FaultKind
    target: str
    began_at: float
    ended_at: float
    link: str = ""

    def __str__(self) -> str:
        link = f" ({self.link})" if self.link else ""
        return f"{self.kind} {self.target}{link} for {self.ended_at - self.began_at:.2f} s"


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a part still has after the last call, and the most that it may have."""

    part: str
    name: str
    value: float
    allowed: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Which parts there are: agents by function, the inference server and its limit by agent.

    ``shared`` are the gateways whose address several processes share. ``broker_kinds`` are what can
    be done to the broker only, ``spares`` what the queue can do without, one at a time.
    ``broker_rest_s`` is how long the broker and its spares are left alone after a fault.
    """

    gateways: tuple[str, ...]
    shared: tuple[str, ...]
    agents: dict[str, tuple[str, ...]]
    servers: dict[str, str]
    max_concurrency: int
    broker: str = "nats"
    broker_kinds: tuple[FaultKind, ...] = ()
    broker_rest_s: float = 0.0
    spares: tuple[str, ...] = ()

    def parts_of(self, function: str) -> tuple[str, ...]:
        """Return the agents and inference servers of a function."""
        agents = self.agents[function]
        return (*agents, *(self.servers[agent] for agent in agents))

    def function_of(self, target: str) -> str:
        """Return the function that an agent or an inference server works for, else empty."""
        return next((name for name in self.agents if target in self.parts_of(name)), "")

    def agent_of(self, server: str) -> str:
        """Return the agent beside an inference server."""
        return next(agent for agent, name in self.servers.items() if name == server)


@dataclass(frozen=True)
class History:
    """Everything that is known about one run."""

    layout: Layout
    calls: list[Call] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)
    agent_starts: dict[str, list[float]] = field(default_factory=dict)

    @cached_property
    def runs_of(self) -> dict[int, list[Run]]:
        """The runs of each call, in the order of their starts."""
        found: dict[int, list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.started_at):
            found.setdefault(run.number, []).append(run)
        return found

    def faults_during(self, began_at: float, ended_at: float, tail_s: float) -> Iterator[Fault]:
        """Yield the faults whose effects, which last ``tail_s`` longer, meet a period.

        What a cut link lost is sent again after a pause that grows with the cut.
        """
        for fault in self.faults:
            lasting_s = fault.ended_at - fault.began_at if fault.kind is FaultKind.CUT else 0.0
            if fault.began_at <= ended_at and fault.ended_at + lasting_s + tail_s >= began_at:
                yield fault
