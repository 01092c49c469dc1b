"""Health probes of the inference server (``docs/wire.md`` §8.4).

A probe is one request on a connection of its own: a GET, or gRPC's standard health check. What it
means: `worker_agent.inference.liveness`.
"""

import asyncio
from typing import NamedTuple, Protocol

from http1.client.pool import Pool
from http1.client.status import InvalidResponseError
from http1.stream import Failure, Headers, NullResponseStream
from http2.client.connection import Http2Client
from http2.client.pool import Http2Pool
from http2.client.request import Http2Request
from runtime.timeouts import silence_limit
from wire.grpc import MESSAGE_OF_NO_BYTES, STATUS, request_head

CHECK_PATH = b"/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
"""How `grpc.health.v1.HealthCheckResponse` begins with status SERVING: field 1, value 1."""
_STATES = {b"\x08\x02": "NOT_SERVING", b"\x08\x03": "SERVICE_UNKNOWN"}
_UNIMPLEMENTED = b"12"
_FRAME_BYTES = 5
"""What precedes a message: whether it is compressed, and its length."""
_MAX_BODY_BYTES = 4096


class Miss(NamedTuple):
    """Why a probe was not healthy. ``is_refused``: nobody listens on the port of requests."""

    reason: str
    is_refused: bool = False


class Probe(Protocol):
    """Asks the inference server whether it is healthy.

    ``authority`` is ``host:port``, ``what`` is asked for there. ``is_apart``: the port of probes is
    not that of requests.
    """

    authority: str
    what: str
    is_apart: bool

    async def ask(self) -> Miss | None:
        """Probe once; return why the inference server is not healthy, `None` if it is healthy."""

    def close(self) -> None:
        """Close the connections."""


class HttpProbe:
    """A GET, whose response has to have ``expected_status`` within ``timeout_s``."""

    def __init__(
        self,
        pool: Pool,
        authority: str,
        path: str,
        *,
        expected_status: int,
        timeout_s: float,
        is_apart: bool = False,
    ) -> None:
        self.authority = authority
        self.what = path
        self.is_apart = is_apart
        self._pool = pool
        self._expected_status = expected_status
        self._timeout_s = timeout_s

    async def ask(self) -> Miss | None:
        """Probe once."""
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (
            self.what.encode(),
            self.authority.encode(),
        )
        try:
            found = await self._pool.status_of(head, self._timeout_s)
        except InvalidResponseError:
            return Miss("the response is not HTTP/1.1; a gRPC server needs another protocol")
        except OSError as error:
            return _miss_of(error, self._timeout_s, is_apart=self.is_apart)
        if found != self._expected_status:
            return Miss(f"status {found}, expected {self._expected_status}")
        return None

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class GrpcProbe:
    """``grpc.health.v1.Health/Check`` for the whole server: it has to say SERVING."""

    def __init__(
        self, pool: Http2Pool, authority: str, *, timeout_s: float, is_apart: bool = False
    ) -> None:
        self.authority = authority
        self.what = CHECK_PATH.decode()
        self.is_apart = is_apart
        self._pool = pool
        self._timeout_s = timeout_s

    async def ask(self) -> Miss | None:
        """Probe once."""
        head = request_head(CHECK_PATH, self.authority.encode())
        connection: Http2Client | None = None
        try:
            async with silence_limit(self._timeout_s):
                connection = await self._pool.open()
                response = _CheckResponse()
                response.writer = connection.start(response, head, MESSAGE_OF_NO_BYTES)
                return await response.verdict
        except OSError as error:
            return _miss_of(error, self._timeout_s, is_apart=self.is_apart)
        finally:
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class _CheckResponse(NullResponseStream):
    """The response to a health check; ``verdict`` gets what it means, or `ConnectionError`."""

    def __init__(self) -> None:
        self.verdict: asyncio.Future[Miss | None] = asyncio.get_running_loop().create_future()
        self.writer: Http2Request | None = None
        self._status = 0
        self._headers: Headers = []
        self._body = b""

    def response_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:  # noqa: ARG002
        """Take the head."""
        self._status, self._headers = status, headers

    def response_data(self, data: bytes) -> None:
        """Take a part of the message."""
        if len(self._body) <= _MAX_BODY_BYTES:
            self._body += data

    def response_end(self) -> None:
        """Report what the response means."""
        if self.verdict.done():
            return
        trailers = self.writer.trailers if self.writer is not None else []
        grpc_status = dict([*self._headers, *trailers]).get(STATUS, b"")
        message = self._body[_FRAME_BYTES:]
        miss: Miss | None = None
        if self._status != 200:
            miss = Miss(f"status {self._status} in place of a gRPC response")
        elif grpc_status == _UNIMPLEMENTED:
            miss = Miss("the server has no grpc.health.v1.Health")
        elif grpc_status != b"0":
            miss = Miss(f"grpc-status {grpc_status.decode('latin-1')} of the health check")
        elif not message.startswith(_SERVING):
            miss = Miss(f"the server says {_STATES.get(message[:2], 'that its state is unknown')}")
        self.verdict.set_result(miss)

    def response_failed(self, failure: Failure) -> None:
        """Fail: there is no response."""
        if not self.verdict.done():
            error = ConnectionError(f"no gRPC response ({failure.name.lower()})")
            self.verdict.set_exception(error)


def _miss_of(error: OSError, timeout_s: float, *, is_apart: bool) -> Miss:
    if isinstance(error, TimeoutError):
        return Miss(f"no response within {timeout_s:g} s")
    is_refused = isinstance(error, ConnectionRefusedError) and not is_apart
    return Miss(error.strerror or str(error) or type(error).__name__, is_refused)
