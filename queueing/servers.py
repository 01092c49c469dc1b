"""The servers of a broker: their addresses, and the pauses between attempts to reach them."""

from typing import NamedTuple


class Server(NamedTuple):
    """One address; ``user`` and ``password`` are empty if there is none.

    A user without a password is a token in NATS, as in every client of it.
    """

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def longest_pause_s(failures: int, first_s: float, most_s: float) -> float:
    """Return the longest wait after so many failures in a row: doubled each time, bounded."""
    return min(most_s, first_s * float(1 << min(failures - 1, 16)))
