"""Streams that change to a WebSocket by extended CONNECT (RFC 8441)."""

import h2.settings
import pytest

from http1.server.limits import ServerLimits
from http2.frames import Code
from tests.support.http2_harness import AUTHORITY, Http2Harness, Response

CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":authority", AUTHORITY),
    (b":path", b"/ws?a=1"),
    (b"sec-websocket-version", b"13"),
]


def connect(
    harness: Http2Harness, headers: list[tuple[bytes, bytes]] = CONNECT, *, ends: bool = False
) -> int:
    number: int = harness.client.get_next_available_stream_id()
    harness.client.send_headers(number, headers, end_stream=ends)
    harness.responses[number] = Response()
    harness.exchange()
    return number


def opened(limits: ServerLimits | None = None) -> tuple[Http2Harness, int]:
    harness = Http2Harness(limits)
    number = connect(harness)
    assert harness.last.events == ["first_part_end"]
    harness.last.writer.open_tunnel([(b"x-own", b"1")])
    harness.exchange()
    response = harness.responses[number]
    assert response.status == 200
    names = {name for name, _ in response.headers}
    assert b"x-own" in names
    assert not {b"upgrade", b"connection", b"content-length", b"sec-websocket-accept"} & names
    return harness, number


def test_it_is_told_that_websockets_are_taken_and_they_ask_each_time() -> None:
    harness = Http2Harness()
    assert harness.client.remote_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
    for _ in range(4):
        connect(harness)
        request = harness.last.request
        assert (request.protocol, request.method, request.target) == (
            b"websocket",
            b"GET",
            b"/ws?a=1",
        )
        assert (request.body_bytes, request.authority) == (None, AUTHORITY)
        assert dict(request.headers) == {b"host": AUTHORITY, b"sec-websocket-version": b"13"}


def test_one_that_ends_at_once_has_an_empty_body() -> None:
    harness = Http2Harness()
    connect(harness, ends=True)
    assert harness.last.request.body_bytes == 0


def test_data_pass_in_both_directions_and_each_ends_by_itself() -> None:
    harness, number = opened()
    exchange = harness.last
    harness.send(number, b"ping")
    exchange.writer.send_data(b"pong")
    exchange.writer.send_chunk(b"1\r\n!\r\n", 1)
    harness.exchange()
    assert exchange.body_bytes == b"ping"
    assert harness.responses[number].body == b"pong!"
    harness.client.end_stream(number)
    harness.exchange()
    assert exchange.events == ["first_part_end", "data", "end"]
    assert not harness.responses[number].is_ended
    exchange.writer.send_data(b"bye")
    exchange.is_over = True
    exchange.writer.send_end()
    harness.exchange()
    assert harness.responses[number].body == b"pong!bye"
    assert harness.responses[number].is_ended
    assert harness.goaway is None


def test_our_end_comes_after_what_waits_also_if_something_broke() -> None:
    harness, number = opened()
    harness.reads = False
    harness.last.writer.send_data(bytes(100_000))
    assert harness.last.events[-1] == "pause_writing"
    harness.last.is_over = True
    harness.last.writer.abort()
    harness.exchange()
    got = len(harness.responses[number].body)
    assert got < 100_000
    assert harness.responses[number].reset is None
    for scope in (None, number):
        harness.client.increment_flow_control_window(100_000, scope)
    harness.exchange()
    assert len(harness.responses[number].body) == 100_000
    assert harness.responses[number].is_ended


def test_a_reset_is_a_client_that_has_left() -> None:
    harness, number = opened()
    harness.client.reset_stream(number, 8)
    harness.exchange()
    assert harness.last.events[-1] == "broken"
    assert harness.goaway is None


def test_silence_ends_nothing() -> None:
    harness, number = opened(ServerLimits(body_stall_s=1, idle_timeout_s=1, linger_s=1))
    harness.pass_time(100)
    harness.send(number, b"x")
    harness.pass_time(100)
    harness.exchange()
    assert harness.last.events == ["first_part_end", "data"]
    # What a client keeps open after our end is not kept.
    harness.last.is_over = True
    harness.last.writer.send_end()
    harness.pass_time(10)
    harness.exchange()
    assert harness.responses[number].reset == Code.NO_ERROR


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([*CONNECT[:1], (b":protocol", b"connect-udp"), *CONNECT[2:]], 501),
        ([*CONNECT[:1], *CONNECT[2:]], 501),
        ([(b":method", b"GET"), *CONNECT[1:]], 0),
        ([*CONNECT[:3], *CONNECT[4:]], 0),
        ([*CONNECT[:4], CONNECT[5]], 0),
    ],
)
def test_other_protocols_are_refused_and_what_is_malformed_is_reset(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    harness = Http2Harness(is_checked=False)
    number = connect(harness, headers)
    assert harness.exchanges == []
    if status:
        assert harness.responses[number].status == status
    else:
        assert harness.responses[number].reset == Code.PROTOCOL_ERROR
