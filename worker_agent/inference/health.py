"""Is the inference server able to serve? (``spec/worker.md`` §6.2)

A probe is one GET on a connection of its own. Between probes the last result holds.
"""

import asyncio
from typing import NamedTuple

from http1.client.connection import Connection
from http1.client.pool import Pool
from http1.stream import Failure, Headers


class Probe(NamedTuple):
    """What is asked, and what counts as healthy.

    ``authority`` is ``host:port`` for the Host header; ``timeout_s`` bounds one probe in all.
    """

    authority: str
    path: str
    expected_status: int
    timeout_s: float


class _Answer:
    """The `ResponseStream` of one probe: its status, or why there is none."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def response_whole(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002  only the status counts
        body_bytes: int | None,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
    ) -> None:
        self._set(status)

    def response_head(
        self,
        status: int,
        headers: Headers,  # noqa: ARG002
        body_bytes: int | None,  # noqa: ARG002
    ) -> None:
        self._set(status)

    def response_data(self, data: bytes) -> None: ...

    def response_end(self) -> None: ...

    def response_broken(self, failure: Failure, *, is_stale: bool) -> None:  # noqa: ARG002
        if not self.status.done():
            self.status.set_exception(ConnectionError(f"no answer ({failure.name.lower()})"))

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def _set(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)


async def unhealthy(pool: Pool, probe: Probe) -> str:
    """Ask once; return why the inference server is not healthy, ``""`` when it is."""
    connection: Connection | None = None
    try:
        async with asyncio.timeout(probe.timeout_s):
            connection = await pool.connect()
            answer = _Answer()
            connection.start(
                answer,
                b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
                % (probe.path.encode(), probe.authority.encode()),
                b"",
            )
            status = await answer.status
    except TimeoutError:
        return f"no answer within {probe.timeout_s:g} s"
    except OSError as error:
        return str(error) or type(error).__name__
    finally:
        if connection is not None:
            connection.close()
    if status != probe.expected_status:
        return f"status {status}, expected {probe.expected_status}"
    return ""
