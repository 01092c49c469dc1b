"""What every invocation of one gateway process shares."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.invocation.ports import Desk
from queueing.interface import FunctionQueue


@dataclass(frozen=True, slots=True)
class Site:
    """Ports, addresses and clocks; made once by the app."""

    queue: FunctionQueue
    desk: Desk
    region: bytes
    target_uri: bytes
    """This process's own attach address, scheme and authority (`spec/invocation.md` §3)."""
    process: int
    """This process's number, which its request ids carry."""
    clock: Callable[[], float]
    """The monotonic clock, in seconds."""
    wall_ns: Callable[[], int]
    """Unix time in nanoseconds."""
