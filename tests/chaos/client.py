"""A client of HTTP/1.1 that notices everything: every byte, and how each response ends."""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from runtime.tasks import spawn
from tests.chaos.history import Call, End, Kind
from tests.chaos.load import PlannedCall, Session
from tests.chaos.payloads import CALL, foreign_part

GIVE_UP_S = 75.0
"""A call that has not ended as long after its window never ends."""
_MAX_HEAD_BYTES = 1 << 16
_READ_BYTES = 1 << 16


class BrokenError(Exception):
    """The connection ended before the response did, or what came is no response."""


@dataclass(slots=True)
class Response:
    """What has been seen of a response."""

    head_at: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    malformed: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """How a function is called: its id and a key, and the address of each gateway in turn."""

    function_id: str
    api_key: str
    gateways: Mapping[str, tuple[str, int]]


class Client:
    """Carries out one session. Each call of it is appended to ``calls`` when it has ended."""

    def __init__(self, session: Session, target: Target, calls: list[Call]) -> None:
        self._session = session
        self._target = target
        self._calls = calls
        self._gateway = session.gateway
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._is_used = False
        self._is_half_sent = False

    async def run(self) -> None:
        """Make every call of the session."""
        try:
            if self._session.is_pipelined:
                await self._run_pipelined()
            else:
                for planned in self._session.calls:
                    await self._run_one(planned)
        finally:
            self._close()

    async def _run_one(self, planned: PlannedCall) -> None:
        started_at = time.monotonic()
        response = Response()
        end = await self._ended(planned, response)
        self._record(planned, started_at, response, end)
        is_last = response.headers.get("connection", "").lower() == "close"
        if end is not End.WHOLE or is_last or self._is_half_sent:
            self._close()

    async def _ended(self, planned: PlannedCall, response: Response) -> End:
        give_up_s = planned.window_s + planned.paced_s + GIVE_UP_S
        leaves_s = planned.leaves_s
        wait_s = give_up_s if leaves_s is None else min(leaves_s, give_up_s)
        sending: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(wait_s):
                await self._connect()
                assert self._reader is not None
                sending = spawn(self._send(planned), "send")
                await _read_response(self._reader, response, is_head=planned.kind is Kind.HEAD)
        except TimeoutError:
            return End.GAVE_UP if leaves_s is None else End.LEFT
        except ConnectionRefusedError:
            return End.REFUSED
        except (BrokenError, OSError):
            return End.STALE if self._is_used and not response.head_at else End.CUT
        finally:
            if sending is not None:
                # The response may come before the request is complete.
                self._is_half_sent = sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending
        self._is_used = True
        return End.WHOLE

    async def _run_pipelined(self) -> None:
        calls = self._session.calls
        started_at = begun_at = time.monotonic()
        starts: dict[int, float] = {}
        ends: dict[int, tuple[Response, End]] = {}
        end = End.WHOLE
        try:
            async with asyncio.timeout(sum(call.window_s for call in calls) + GIVE_UP_S):
                await self._connect()
                assert self._reader is not None
                assert self._writer is not None
                self._writer.write(b"".join(self._head(call) + call.body for call in calls))
                for planned in calls:
                    # The gateway begins with a request when it is done with the one before.
                    starts[planned.number] = begun_at
                    response = Response()
                    ends[planned.number] = response, End.CUT
                    await _read_response(self._reader, response, is_head=False)
                    ends[planned.number] = response, End.WHOLE
                    begun_at = time.monotonic()
        except TimeoutError:
            end = End.GAVE_UP
        except ConnectionRefusedError:
            end = End.REFUSED
        except (BrokenError, OSError):
            end = End.CUT
        for planned in calls:
            response, own = ends.get(planned.number, (Response(), end))
            own = end if own is not End.WHOLE else own
            is_never_begun = own is End.CUT and not response.head_at and planned is not calls[0]
            # Responses come in turn, so the windows of those before are waited for as well.
            before = [call for call in calls if call.number <= planned.number]
            late = replace(planned, window_s=sum(call.window_s for call in before))
            began = starts.get(planned.number, started_at)
            self._record(late, began, response, End.STALE if is_never_begun else own)

    async def _connect(self) -> None:
        """Connect to the session's gateway, or to another one if that refuses."""
        if self._writer is not None:
            return
        self._is_used = False
        others = [name for name in self._target.gateways if name != self._session.gateway]
        for name in (self._session.gateway, *others):
            self._gateway = name
            with suppress(ConnectionRefusedError):
                self._reader, self._writer = await asyncio.open_connection(
                    *self._target.gateways[name], limit=_MAX_HEAD_BYTES
                )
                return
        raise ConnectionRefusedError

    async def _send(self, planned: PlannedCall) -> None:
        writer = self._writer
        assert writer is not None
        with suppress(OSError):
            body = planned.body
            size = -(-len(body) // planned.body_parts) or 1
            parts = [body[i : i + size] for i in range(0, len(body), size)]
            # The first part goes with the head, or not at all: both happen.
            first = b"" if planned.number % 3 == 0 or not parts else _framed(planned, parts.pop(0))
            writer.write(self._head(planned) + first)
            await writer.drain()
            for part in parts:
                await asyncio.sleep(planned.part_pause_s)
                writer.write(_framed(planned, part))
                await writer.drain()
            if planned.is_chunked:
                writer.write(b"0\r\n\r\n")
                await writer.drain()

    def _head(self, planned: PlannedCall) -> bytes:
        lines = [
            f"{planned.method} {planned.target} HTTP/1.1",
            "host: chaos",
            f"authorization: Bearer {self._target.api_key}",
            f"function-id: {self._target.function_id}",
            f"nvcf-poll-seconds: {planned.window_s:g}",
            f"{CALL}: {planned.number}",
        ]
        if planned.is_chunked:
            lines.append("transfer-encoding: chunked")
        elif planned.method == "POST":
            lines.append(f"content-length: {planned.body_bytes}")
        return "\r\n".join([*lines, "", ""]).encode()

    def _close(self) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.transport.abort()

    def _record(
        self, planned: PlannedCall, started_at: float, response: Response, end: End
    ) -> None:
        foreign, missing = _compare(planned, response)
        self._calls.append(
            Call(
                number=planned.number,
                kind=planned.kind,
                function=self._session.function,
                gateway=self._gateway,
                window_s=planned.window_s,
                paced_s=planned.paced_s,
                started_at=started_at,
                ended_at=time.monotonic(),
                end=end,
                status=response.status,
                reason=_reason(response),
                head_at=response.head_at,
                is_served=CALL in response.headers,
                foreign=foreign,
                missing=missing,
                request_id=response.headers.get("nvcf-reqid", ""),
            )
        )


async def _read_response(
    reader: asyncio.StreamReader, response: Response, *, is_head: bool
) -> None:
    """Read a response as far as it comes. Raises `BrokenError` if it ends before it is complete."""
    try:
        while response.status < 200:
            head = await reader.readuntil(b"\r\n\r\n")
            response.head_at = time.monotonic()
            lines = head[:-4].decode("latin-1").split("\r\n")
            response.status = int(lines[0].split(" ")[1])
            fields = (line.partition(":") for line in lines[1:])
            response.headers = {name.lower(): value.strip() for name, _, value in fields}
            if response.status < 200:
                response.head_at = 0.0
        await _read_body(reader, response, is_head=is_head)
    except asyncio.IncompleteReadError as error:
        raise BrokenError from error
    except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
        response.malformed = f"bytes that are no response: {error}"
        raise BrokenError from error


async def _read_body(reader: asyncio.StreamReader, response: Response, *, is_head: bool) -> None:
    if is_head:
        return
    if response.headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            data = await reader.readexactly(size + 2)
            if not data.endswith(b"\r\n"):
                raise ValueError(data[-2:])
            response.body += data[:-2]
        await reader.readuntil(b"\r\n")
        return
    left = int(response.headers.get("content-length", "without framing"))
    while left:
        data = await reader.read(min(left, _READ_BYTES))
        if not data:
            raise BrokenError
        response.body += data
        left -= len(data)


def _framed(planned: PlannedCall, part: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part) if planned.is_chunked else part


def _compare(planned: PlannedCall, response: Response) -> tuple[str, str]:
    """Return what of a served response belongs to another call, and what it lacks."""
    if response.malformed:
        return response.malformed, ""
    owner = response.headers.get(CALL)
    if owner is None:
        return "", ""
    expected = b"" if planned.kind is Kind.HEAD else planned.response
    foreign = foreign_part(bytes(response.body[: len(expected)]), planned.number, expected)
    if owner != str(planned.number):
        foreign = f"the response to call {owner}"
    elif len(response.body) > len(expected):
        foreign = f"{len(response.body) - len(expected)} bytes more than its response has"
    missing = len(expected) - len(response.body)
    return foreign, f"{missing} of {len(expected)} bytes" if missing > 0 else ""


def _reason(response: Response) -> str:
    """Return the reason in a problem document, or its kind."""
    if response.headers.get("content-type") != "application/problem+json":
        return ""
    with suppress(ValueError):
        document = json.loads(response.body.decode())
        return str(document.get("reason") or document.get("type", "").rpartition(":")[2])
    return ""
