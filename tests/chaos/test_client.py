"""The client notices how a response ends and whose data it has."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from tests.chaos.client import Client, Target
from tests.chaos.history import Call, End, Kind
from tests.chaos.load import PlannedCall, Session
from tests.chaos.payloads import CALL, event, receipt
from tests.support.waiting import PATIENCE_S

STREAM = PlannedCall(1, Kind.STREAM, PATIENCE_S, {"events": 3, "ms": 0})
SMALL = PlannedCall(2, Kind.SMALL, PATIENCE_S, body_bytes=10)


def head(framing: str, number: int | None = 1, status: str = "200 OK") -> bytes:
    own = "" if number is None else f"{CALL}: {number}\r\n"
    return f"HTTP/1.1 {status}\r\n{own}{framing}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = head("transfer-encoding: chunked")
EVENTS = b"".join(chunk(event(1, index)) for index in range(3))
LAST = b"0\r\n\r\n"
WHOLE_RECEIPT = receipt(2, SMALL.body)
SMALL_HEAD = head(f"content-length: {len(WHOLE_RECEIPT)}", 2)


@asynccontextmanager
async def serving(*responses: bytes) -> AsyncIterator[tuple[str, int]]:
    """Send one of ``responses`` for each request of a connection, then close it."""

    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = asyncio.Event()
        ended.append(end)
        try:
            for response in responses:
                request = await reader.readuntil(b"\r\n\r\n")
                if b"content-length: 10\r\n" in request:
                    await reader.readexactly(10)
                writer.write(response)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()
    for end in ended:
        await end.wait()


async def calls_of(
    address: tuple[str, int], *planned: PlannedCall, is_pipelined: bool = False, **more: object
) -> list[Call]:
    calls: list[Call] = []
    gateways = {"g": address, **more}
    target = Target("id", "key", gateways)  # type: ignore[arg-type]  # more addresses
    await Client(Session(0, "f", "g", planned, is_pipelined), target, calls).run()
    return calls


def ends_whole(call: Call) -> bool:
    return call.end is End.WHOLE and call.is_served and not call.foreign and not call.missing


def ends_cut(call: Call) -> bool:
    return call.end is End.CUT and not call.foreign


def ends_cleanly_and_lacks(text: str) -> Callable[[Call], bool]:
    return lambda call: call.end is End.WHOLE and call.missing == text and not call.foreign


def is_foreign(call: Call) -> bool:
    return call.foreign != ""


@pytest.mark.parametrize(
    ("planned", "response", "expected"),
    [
        (STREAM, CHUNKED + EVENTS + LAST, ends_whole),
        (STREAM, CHUNKED + EVENTS, ends_cut),
        (STREAM, CHUNKED + EVENTS[:-3], ends_cut),
        (STREAM, CHUNKED + EVENTS[:-1], ends_cut),
        (STREAM, CHUNKED + EVENTS + b"0", ends_cut),
        (STREAM, CHUNKED + EVENTS[:-3] + LAST, is_foreign),
        (STREAM, head("x-framing: none") + EVENTS, is_foreign),
        (STREAM, b"", ends_cut),
        (STREAM, CHUNKED[:20], ends_cut),
        (STREAM, CHUNKED + LAST, ends_cleanly_and_lacks("33 of 33 bytes")),
        (STREAM, CHUNKED + chunk(event(1, 0)) + LAST, ends_cleanly_and_lacks("22 of 33 bytes")),
        (STREAM, CHUNKED + EVENTS + chunk(event(1, 2)) + LAST, is_foreign),
        (STREAM, CHUNKED + chunk(event(1, 0)) + chunk(event(7, 1)) + LAST, is_foreign),
        (STREAM, head("transfer-encoding: chunked", 7) + EVENTS + LAST, is_foreign),
        (SMALL, SMALL_HEAD + WHOLE_RECEIPT, ends_whole),
        (SMALL, SMALL_HEAD + WHOLE_RECEIPT[:-1], ends_cut),
        (SMALL, SMALL_HEAD + receipt(2, b"call 3\ncal"), is_foreign),
        (replace(SMALL, kind=Kind.HEAD, body_bytes=0), SMALL_HEAD, ends_whole),
    ],
)
async def test_how_a_response_ends(
    planned: PlannedCall, response: bytes, expected: Callable[[Call], bool]
) -> None:
    async with serving(response) as address:
        (call,) = await calls_of(address, planned)
    assert expected(call), call


async def test_an_error_of_the_gateway_has_its_reason() -> None:
    document = b'{"type": "urn:x:problem-details:timeout", "reason": "poll_timeout"}'
    framing = f"content-type: application/problem+json\r\ncontent-length: {len(document)}"
    async with serving(head(framing, None, "504 Gateway Timeout") + document) as address:
        (call,) = await calls_of(address, STREAM)
    assert (call.outcome, call.is_served) == ("504 poll_timeout", False)
    assert call.head_at


async def test_a_kept_connection_that_is_closed_before_a_response_is_stale() -> None:
    async with serving(SMALL_HEAD + WHOLE_RECEIPT) as address:
        first, second = await calls_of(address, SMALL, replace(SMALL, number=3))
    assert (first.end, second.end) == (End.WHOLE, End.STALE)


async def test_pipelined_responses_are_told_apart() -> None:
    other = receipt(3, replace(SMALL, number=3).body)
    responses = (SMALL_HEAD + WHOLE_RECEIPT, head(f"content-length: {len(other)}", 3) + other)
    calls = SMALL, replace(SMALL, number=3), replace(SMALL, number=4)
    async with serving(*responses) as address:
        ended = await calls_of(address, *calls, is_pipelined=True)
    assert [call.end for call in ended] == [End.WHOLE, End.WHOLE, End.STALE]
    assert all(ends_whole(call) for call in ended[:2])


async def test_a_gateway_that_refuses_is_replaced_by_the_next_one() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refusing = unused.getsockname()
        async with serving(SMALL_HEAD + WHOLE_RECEIPT) as address:
            (call,) = await calls_of(refusing, SMALL, other=address)
        assert (call.end, call.gateway) == (End.WHOLE, "other")
        (call,) = await calls_of(refusing, SMALL)
        assert call.end is End.REFUSED


async def test_a_client_that_leaves_has_planned_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (call,) = await calls_of(silent.getsockname(), replace(SMALL, leaves_s=0.01))
    assert call.end is End.LEFT
