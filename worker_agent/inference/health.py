"""Health probes of the inference server (``docs/wire.md`` §8.4).

A probe is one GET on a connection of its own. What it means: `worker_agent.inference.liveness`.
"""

from typing import NamedTuple

from http1.client.pool import Pool


class Probe(NamedTuple):
    """The request of a probe, and which response counts as healthy.

    ``authority`` is ``host:port`` for the Host header; ``timeout_s`` bounds a whole probe.
    ``is_apart``: the port of probes is not that of requests.
    """

    authority: str
    path: str
    expected_status: int
    timeout_s: float
    is_apart: bool = False


class Miss(NamedTuple):
    """Why a probe was not healthy. ``is_refused``: nobody listens on the port of requests."""

    reason: str
    is_refused: bool = False


async def probe_once(pool: Pool, probe: Probe) -> Miss | None:
    """Probe once; return why the inference server is not healthy, `None` if it is healthy."""
    head = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (
        probe.path.encode(),
        probe.authority.encode(),
    )
    try:
        found = await pool.status_of(head, probe.timeout_s)
    except TimeoutError:
        return Miss(f"no response within {probe.timeout_s:g} s")
    except OSError as error:
        is_refused = isinstance(error, ConnectionRefusedError) and not probe.is_apart
        return Miss(error.strerror or str(error) or type(error).__name__, is_refused)
    if found != probe.expected_status:
        return Miss(f"status {found}, expected {probe.expected_status}")
    return None
