"""One connection: requests and responses, windows, faults, floods and ends."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import h2.connection
import h2.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.server.limits import ServerLimits
from http2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PREFACE,
    SETTINGS_ACK,
    Code,
    Kind,
    Setting,
    encode_frame,
    encode_goaway,
    encode_rst_stream,
    encode_settings,
    encode_window_update,
)
from http2.header_blocks import encode_headers
from http2.server.limits import (
    CONNECTION_WINDOW,
    MAX_HELD_BYTES,
    MAX_NOISE,
    MAX_STREAMS,
    STREAM_HIGH_WATER,
    STREAM_WINDOW,
)
from http2.server.protocol import Http2Protocol
from tests.support.edge_harness import Exchange, Harness, answering
from tests.support.http2_harness import Http2Harness, RawHarness, request_headers

HEAD = encode_headers(request_headers())


# One exchange


def test_a_request_and_its_response() -> None:
    harness = Http2Harness(on=answering)
    number = harness.ask(b"POST", b"/p?q=1", (b"content-length", b"5"), ends=False)
    harness.send(number, b"hello", ends=True)
    request = harness.last.request
    assert (request.method, request.target, request.body_bytes) == (b"POST", b"/p?q=1", 5)
    assert (request.authority, request.host) == (b"f.example", b"f.example")
    assert request.headers[0] == (b"host", b"f.example")
    assert request.values == dict(request.headers)
    assert harness.last.events == ["data", "end"]
    response = harness.responses[number]
    assert (response.status, response.body, response.is_ended) == (200, b"/p?q=1 hello", True)
    names = [name for name, _ in response.headers]
    assert names == [b":status", b"date", b"server", b"content-length"]
    assert harness.goaway is None


def test_requests_of_one_connection_run_side_by_side() -> None:
    harness = Http2Harness()
    numbers = [harness.ask(path=b"/%d" % n) for n in range(5)]
    for number in reversed(numbers):
        harness.of(number).answer(b"%d" % number)
        harness.exchange()
    assert [harness.responses[n].body for n in numbers] == [b"%d" % n for n in numbers]


def test_the_same_head_gives_the_same_request_each_time_and_on_each_connection() -> None:
    for _ in range(3):
        harness = Http2Harness(on=answering)
        for _ in range(5):
            harness.ask(b"GET", b"/known", (b"accept", b"x"))
            harness.ask(b"GET", b"/other", (b"accept", b"x"))
        requests = [exchange.request for exchange in harness.exchanges]
        assert [request.target for request in requests] == [b"/known", b"/other"] * 5
        assert {request.values[b"accept"] for request in requests} == {b"x"}
        assert requests[-1].known is not None
        # What the client's table holds now stands for something else: an old block is no answer.
        harness.ask(b"GET", b"/known", (b"x-new", b"1"))
        harness.ask(b"GET", b"/known", (b"accept", b"x"))
        assert harness.exchanges[-2].request.values[b"x-new"] == b"1"
        assert b"x-new" not in harness.last.request.values


def test_a_head_that_ends_its_stream_is_not_taken_for_one_that_does_not() -> None:
    harness = Http2Harness()
    for _ in range(4):
        harness.ask(b"POST")
        assert harness.last.request.body_bytes == 0
        harness.ask(b"POST", ends=False)
        assert harness.last.request.body_bytes is None


def test_a_body_of_unknown_length_announces_its_first_part_once() -> None:
    harness = Http2Harness()
    number = harness.ask(b"POST", ends=False)
    harness.send(number, b"x")
    harness.send(number, b"y", ends=True)
    assert harness.last.events == ["first_part_end", "data", "data", "end"]


def test_a_whole_body_of_unknown_length_has_no_first_part() -> None:
    harness = Http2Harness()
    number = harness.client.get_next_available_stream_id()
    harness.client.send_headers(number, request_headers(b"POST"))
    harness.client.send_data(number, b"x", end_stream=True)
    harness.exchange()
    assert harness.last.events == ["data", "end"]


def test_cookies_come_in_one_line() -> None:
    harness = Http2Harness()
    harness.ask(b"GET", b"/", (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"))
    assert harness.last.request.headers[1:] == [(b"x", b"y"), (b"cookie", b"a=1; b=2")]


def test_trailers_go_both_ways() -> None:
    harness = Http2Harness()
    number = harness.ask(b"POST", b"/", (b"te", b"trailers"), ends=False)
    harness.client.send_data(number, b"x")
    harness.client.send_headers(number, [(b"x-sum", b"1")], end_stream=True)
    harness.exchange()
    assert harness.last.trailers == [(b"x-sum", b"1")]
    assert harness.last.events[-1] == "end"
    writer = harness.last.writer
    writer.send_head(200, [], None)
    writer.send_data(b"body")
    writer.add_trailers([(b"grpc-status", b"0")])
    writer.send_end()
    harness.exchange()
    response = harness.responses[number]
    assert (response.body, response.trailers) == (b"body", [(b"grpc-status", b"0")])
    assert response.is_ended


def test_trailers_wait_for_the_body_before_them() -> None:
    harness = Http2Harness()
    harness.reads = False
    number = harness.ask()
    writer = harness.last.writer
    writer.send_head(200, [], None)
    writer.send_data(bytes(100_000))
    writer.add_trailers([(b"x", b"y")])
    writer.send_end()
    harness.exchange()
    response = harness.responses[number]
    assert (len(response.body), response.trailers) == (65_535, [])
    harness.client.increment_flow_control_window(100_000)
    harness.client.increment_flow_control_window(100_000, number)
    harness.exchange()
    assert (len(response.body), response.trailers) == (100_000, [(b"x", b"y")])


def test_interim_responses_come_before_the_head() -> None:
    harness = Http2Harness()
    number = harness.ask()
    harness.last.writer.send_interim(103, [(b"link", b"x")])
    harness.last.answer()
    harness.exchange()
    response = harness.responses[number]
    assert response.interim == [[(b":status", b"103"), (b"link", b"x")]]
    assert response.status == 200


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_a_response_without_a_body(method: bytes, status: int) -> None:
    harness = Http2Harness()
    number = harness.ask(method)
    harness.last.answer(b"ignored", status=status)
    harness.exchange()
    response = harness.responses[number]
    assert (response.status, response.body, response.is_ended) == (status, b"", True)
    assert (b"content-length" in dict(response.headers)) is (method == b"HEAD")


@pytest.mark.parametrize("sent", [b"", b"x"])
def test_a_response_shorter_than_announced_is_broken_off(sent: bytes) -> None:
    harness = Http2Harness()
    number = harness.ask()
    harness.last.writer.send_head(200, [], 2)
    harness.last.writer.send_data(sent)
    harness.last.writer.send_end()
    harness.exchange()
    assert harness.responses[number].reset == Code.INTERNAL_ERROR
    assert harness.goaway is None


def test_a_response_longer_than_announced_is_broken_off_and_its_stream_breaks() -> None:
    harness = Http2Harness()
    number = harness.ask()
    harness.last.writer.send_head(200, [], 1)
    harness.last.writer.send_data(b"xy")
    harness.exchange()
    assert harness.responses[number].reset == Code.INTERNAL_ERROR
    assert harness.last.events[-1] == "broken"


def test_a_dispatch_that_raises_gets_500_and_its_neighbours_go_on() -> None:
    def failing(event: str, exchange: Exchange) -> None:
        if event == "dispatch" and exchange.request.target == b"/bad":
            raise RuntimeError

    harness = Http2Harness(on=failing)
    good = harness.ask()
    bad = harness.ask(path=b"/bad")
    assert harness.responses[bad].status == 500
    assert json.loads(harness.responses[bad].body)["instance"] == "/bad"
    harness.of(good).answer()
    harness.exchange()
    assert harness.responses[good].status == 200


def test_100_continue_is_sent_when_the_body_is_wanted() -> None:
    def pausing(event: str, exchange: Exchange) -> None:
        if event == "dispatch":
            exchange.writer.pause_reading()

    for on, expected in ((answering, 1), (pausing, 0)):
        harness = Http2Harness(on=on)
        number = harness.ask(b"POST", b"/", (b"expect", b"100-continue"), ends=False)
        assert len(harness.responses[number].interim) == expected
        harness.last.writer.resume_reading()
        harness.exchange()
        assert harness.responses[number].interim == [[(b":status", b"100")]]


# Requests that are refused


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")], 400),
        (request_headers(b"GET", b"/", (b"host", b"other")), 400),
        (request_headers(b"GET", b"x"), 400),
        (request_headers(b"GET", b"/" + b"x" * 20_000), 414),
        (request_headers(b"GET", b"/", *[(b"x", b"y")] * 200), 431),
        ([(b":method", b"CONNECT"), (b":authority", b"h:1")], 501),
    ],
)
def test_a_request_that_cannot_be_served_gets_a_problem(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    harness = Http2Harness(on=answering, is_checked=False)
    harness.client.send_headers(1, headers, end_stream=True)
    harness.exchange()
    response = harness.responses[1]
    assert response.status == status
    assert json.loads(response.body)["status"] == status
    # The connection and its tables are sound.
    assert harness.goaway is None
    harness.ask(path=b"/next")
    assert harness.last.request.target == b"/next"


@pytest.mark.parametrize(
    "headers",
    [
        request_headers()[1:],
        request_headers()[:3],
        [*request_headers(), (b":path", b"/b")],
        [(b"x", b"y"), *request_headers()],
        [*request_headers(), (b":unknown", b"y")],
        [*request_headers(), (b"Upper", b"y")],
        [*request_headers(), (b"", b"y")],
        [*request_headers(), (b"a b", b"y")],
        [*request_headers(), (b"x", b"a\r\nb: c")],
        [*request_headers(), (b"x", b"a\0")],
        [*request_headers(), (b"x", b" a")],
        [*request_headers(), (b"connection", b"close")],
        [*request_headers(), (b"transfer-encoding", b"chunked")],
        [*request_headers(), (b"te", b"gzip")],
        [*request_headers(), (b"content-length", b"5")],
        [*request_headers(), (b"content-length", b"-1")],
        [*request_headers(), (b"content-length", b"0"), (b"content-length", b"0")],
    ],
)
def test_a_malformed_request_is_reset(headers: list[tuple[bytes, bytes]]) -> None:
    harness = RawHarness(on=answering).open()
    harness.feed_raw(
        encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, encode_headers(headers))
    )
    assert harness.exchanges == []
    assert harness.resets() == [(1, Code.PROTOCOL_ERROR)]
    assert harness.goaway() is None


@pytest.mark.parametrize("parts", [[b"abc", b"d"], [b"a", b""], [b"ab"]])
def test_a_body_of_another_length_than_announced_is_reset(parts: list[bytes]) -> None:
    harness = RawHarness().open()
    head = encode_headers(request_headers(b"POST", b"/", (b"content-length", b"3")))
    harness.feed_raw(encode_frame(Kind.HEADERS, END_HEADERS, 1, head))
    for part in parts:
        flags = END_STREAM if part == parts[-1] else 0
        harness.feed_raw(encode_frame(Kind.DATA, flags, 1, part))
    assert harness.last.events[-1] == "broken"
    assert harness.resets() == [(1, Code.PROTOCOL_ERROR)]


def test_too_many_streams_are_refused_and_cost_the_others_nothing() -> None:
    harness = RawHarness().open()
    for number in range(1, 2 * MAX_STREAMS + 4, 2):
        harness.feed_raw(encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, number, HEAD))
    assert len(harness.exchanges) == MAX_STREAMS
    refused = [(2 * MAX_STREAMS + n, Code.REFUSED_STREAM) for n in (1, 3)]
    assert harness.resets() == refused
    harness.exchanges[0].answer()
    harness.loop.run()
    assert harness.goaway() is None
    harness.feed_raw(
        encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, 2 * MAX_STREAMS + 5, HEAD)
    )
    assert len(harness.exchanges) == MAX_STREAMS + 1


# Windows


def test_a_response_waits_for_the_clients_windows_and_pauses_its_producer() -> None:
    harness = Http2Harness()
    harness.reads = False
    number = harness.ask()
    writer = harness.last.writer
    writer.send_head(200, [], None)
    sent = 0
    while not writer.is_writing_paused():
        writer.send_data(bytes(10_000))
        sent += 10_000
        harness.exchange()
    assert 65_535 + STREAM_HIGH_WATER < sent < 65_535 + STREAM_HIGH_WATER + 20_000
    assert harness.last.events[-1] == "pause_writing"
    assert len(harness.responses[number].body) == 65_535
    harness.client.increment_flow_control_window(1 << 20)
    harness.client.increment_flow_control_window(1 << 20, number)
    harness.exchange()
    assert harness.last.events[-1] == "resume_writing"
    assert len(harness.responses[number].body) == sent


def test_a_slow_reader_does_not_hold_up_the_others() -> None:
    harness = Http2Harness()
    harness.reads = False
    harness.client.increment_flow_control_window(1 << 24)
    slow, fast = harness.ask(), harness.ask()
    for number in (slow, fast):
        harness.of(number).writer.send_head(200, [], None)
        harness.of(number).writer.send_data(bytes(100_000))
    harness.exchange()
    harness.client.increment_flow_control_window(1 << 20, fast)
    harness.exchange()
    assert len(harness.responses[slow].body) == 65_535
    assert len(harness.responses[fast].body) == 100_000


def test_streams_share_the_connections_window_in_turn() -> None:
    harness = Http2Harness()
    harness.reads = False
    numbers = [harness.ask() for _ in range(4)]
    for number in numbers:
        harness.of(number).writer.send_head(200, [], None)
        harness.of(number).writer.send_data(bytes(60_000))
    harness.exchange()
    harness.client.increment_flow_control_window(80_000)
    harness.exchange()
    got = [len(harness.responses[number].body) for number in numbers]
    assert sum(got) == 65_535 + 80_000
    assert min(got[1:]) > 10_000


def test_a_smaller_initial_window_counts_for_what_was_sent_already() -> None:
    harness = Http2Harness()
    harness.reads = False
    number = harness.ask()
    writer = harness.last.writer
    writer.send_head(200, [], None)
    writer.send_data(bytes(50_000))
    harness.exchange()
    harness.client.update_settings({4: 10_000})
    harness.exchange()
    writer.send_data(bytes(10_000))
    harness.exchange()
    assert len(harness.responses[number].body) == 50_000
    harness.client.increment_flow_control_window(45_000, number)
    harness.exchange()
    assert len(harness.responses[number].body) == 55_000


def test_a_reader_that_pauses_holds_a_window_and_no_more() -> None:
    harness = Http2Harness()
    slow = harness.ask(b"POST", ends=False)
    fast = harness.ask(b"POST", ends=False)
    harness.of(slow).writer.pause_reading()
    for _ in range(STREAM_WINDOW // 16_384):
        harness.send(slow, bytes(16_384))
    assert harness.client.local_flow_control_window(slow) == 0
    assert harness.of(slow).body_bytes == b""
    assert harness.protocol.held_bytes == STREAM_WINDOW
    for _ in range(400):
        harness.send(fast, bytes(16_384))
    assert len(harness.of(fast).body_bytes) == 400 * 16_384
    assert harness.client.local_flow_control_window(fast) > STREAM_WINDOW // 2
    harness.of(slow).writer.resume_reading()
    harness.exchange()
    assert len(harness.of(slow).body_bytes) == STREAM_WINDOW
    assert harness.protocol.held_bytes == 0
    assert harness.client.local_flow_control_window(slow) == STREAM_WINDOW


def test_readers_that_pause_hold_no_more_than_a_bound_together() -> None:
    harness = Http2Harness()
    numbers = [harness.ask(b"POST", ends=False) for _ in range(16)]
    for number in numbers:
        harness.of(number).writer.pause_reading()
    for _ in range(STREAM_WINDOW // 16_384):
        for number in numbers:
            if harness.client.local_flow_control_window(number) >= 16_384:
                harness.send(number, bytes(16_384))
    assert MAX_HELD_BYTES < harness.protocol.held_bytes <= MAX_HELD_BYTES + CONNECTION_WINDOW
    for number in numbers:
        harness.of(number).writer.resume_reading()
    harness.exchange()
    assert harness.protocol.held_bytes == 0
    assert harness.client.outbound_flow_control_window > CONNECTION_WINDOW // 2


def test_a_paused_body_that_is_complete_ends_when_it_is_read() -> None:
    harness = Http2Harness()
    number = harness.ask(b"POST", ends=False)
    harness.last.writer.pause_reading()
    harness.send(number, b"x", ends=True)
    assert harness.last.events == ["first_part_end"]
    harness.last.writer.resume_reading()
    harness.exchange()
    assert harness.last.events == ["first_part_end", "data", "end"]


def test_an_early_response_lets_the_client_finish_its_upload() -> None:
    harness = Http2Harness()
    number = harness.ask(b"POST", ends=False)
    harness.last.writer.pause_reading()
    harness.send(number, bytes(16_384))
    harness.last.answer(b"too large", status=413)
    harness.exchange()
    response = harness.responses[number]
    assert (response.status, response.is_ended, response.reset) == (413, True, None)
    for _ in range(100):
        harness.send(number, bytes(16_384))
    harness.send(number, b"", ends=True)
    assert harness.goaway is None
    assert response.reset is None


def test_an_upload_after_its_response_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http2.server.protocol.LINGER_BYTES", 100_000)
    harness = Http2Harness()
    number = harness.ask(b"POST", ends=False)
    harness.last.answer(b"too large", status=413)
    harness.exchange()
    for _ in range(10):
        if harness.responses[number].reset is None:
            harness.send(number, bytes(16_384))
    assert harness.responses[number].reset == Code.NO_ERROR
    assert harness.goaway is None


def test_a_block_that_changes_the_table_is_decoded_each_time() -> None:
    harness = RawHarness(on=answering).open()
    headers = encode_headers(request_headers())

    def ask(number: int, more: bytes) -> dict[bytes, bytes]:
        harness.feed_raw(encode_frame(Kind.HEADERS, 5, number, headers + more))
        return harness.last.request.values

    entered = b"".join(b"\x40\x03x-%c\x01%c" % (name, name) for name in b"abcd")
    assert ask(1, entered)[b"x-a"] == b"a"
    for number in range(3, 13, 2):
        assert ask(number, b"\x40\x05x-dup\x01y")[b"x-dup"] == b"y"
    # Five entries came after x-d, each at the front of the table.
    assert ask(13, bytes((0x80 | 62 + 5,)))[b"x-d"] == b"d"
    assert ask(15, bytes((0x80 | 62 + 8,)))[b"x-a"] == b"a"


def test_a_malformed_head_is_not_taken_for_a_valid_one_with_the_same_lines() -> None:
    good = encode_headers([*request_headers(), (b"x-1", b"a"), (b"x-2", b"b")])
    bad = encode_headers([*request_headers(), (b"x-1", b"a\nx-2\nb")])
    harness = RawHarness(on=answering).open()
    for number in (1, 3, 5):
        harness.feed_raw(encode_frame(Kind.HEADERS, 5, number, good))
    assert len(harness.exchanges) == 3
    for number in (7, 9, 11):
        harness.feed_raw(encode_frame(Kind.HEADERS, 5, number, bad))
    assert len(harness.exchanges) == 3
    assert [number for number, _ in harness.resets()] == [7, 9, 11]


def test_a_response_that_ends_while_its_window_is_negative_ends() -> None:
    harness = RawHarness().open()
    harness.feed_raw(encode_frame(Kind.HEADERS, 5, 1, HEAD))
    writer = harness.last.writer
    writer.send_head(200, [], None)
    writer.send_data(b"12345")
    harness.feed_raw(encode_settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    writer.send_end()
    harness.loop.run()
    assert harness.frames()[-1] == (Kind.DATA, END_STREAM, 1, b"")


def test_nothing_is_sent_into_a_negative_window() -> None:
    harness = RawHarness().open()
    harness.feed_raw(encode_frame(Kind.HEADERS, 5, 1, HEAD))
    writer = harness.last.writer
    writer.send_head(200, [], None)
    writer.send_data(b"12345")
    harness.feed_raw(encode_settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    writer.send_data(b"678")
    writer.send_end()
    harness.loop.run()
    assert b"678" not in harness.transport.written
    # -5 and 6 more: one byte.
    harness.feed_raw(encode_window_update(1, 6))
    assert harness.frames()[-1] == (Kind.DATA, 0, 1, b"6")
    harness.feed_raw(encode_window_update(1, 2))
    assert harness.frames()[-1] == (Kind.DATA, END_STREAM, 1, b"78")


def test_what_was_held_of_a_reset_upload_makes_room_for_others() -> None:
    harness = Http2Harness()
    numbers = [harness.ask(b"POST", ends=False) for _ in range(16)]
    for number in numbers:
        harness.of(number).writer.pause_reading()
    window = harness.client.local_flow_control_window
    for _ in range(STREAM_WINDOW // 16_384):
        for number in numbers:
            if window(number) >= 16_384:
                harness.send(number, bytes(16_384))
    assert harness.client.outbound_flow_control_window < 16_384
    for number in numbers:
        harness.client.reset_stream(number)
    harness.exchange()
    assert harness.protocol.held_bytes == 0
    assert harness.client.outbound_flow_control_window > CONNECTION_WINDOW // 2


# Faults of the connection


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([encode_frame(Kind.DATA, 0, 1, b"x")], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.DATA, 0, 0, b"x")], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.HEADERS, END_HEADERS, 2, HEAD)], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.HEADERS, END_HEADERS, 0, HEAD)], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\x7f")], 9),
        ([encode_frame(Kind.HEADERS, 0, 1, HEAD), encode_frame(Kind.PING, 0, 0, bytes(8))], 1),
        ([encode_frame(Kind.CONTINUATION, END_HEADERS, 1, HEAD)], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.PUSH_PROMISE, 0, 1, bytes(4))], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.PING, 0, 0, bytes(7))], Code.FRAME_SIZE_ERROR),
        ([encode_frame(Kind.SETTINGS, 0, 0, bytes(5))], Code.FRAME_SIZE_ERROR),
        ([encode_frame(Kind.SETTINGS, ACK, 0, bytes(6))], Code.FRAME_SIZE_ERROR),
        ([encode_frame(Kind.RST_STREAM, 0, 1, bytes(4))], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.WINDOW_UPDATE, 0, 0, bytes(4))], Code.PROTOCOL_ERROR),
        ([encode_frame(Kind.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")], 3),
        ([encode_frame(Kind.DATA, 0, 1, bytes(16_385))], Code.FRAME_SIZE_ERROR),
        ([encode_frame(Kind.HEADERS, 5, 1, HEAD)] * 2, Code.STREAM_CLOSED),
    ],
)
def test_a_fault_of_the_connection_ends_it_with_its_code(frames: list[bytes], code: int) -> None:
    harness = RawHarness(on=answering).open()
    harness.feed_raw(*frames)
    assert harness.goaway() == code
    assert harness.transport.eof_written


def test_a_connection_becomes_http2_at_its_preface_however_it_is_cut() -> None:
    whole = PREFACE + encode_settings({}) + encode_frame(Kind.HEADERS, 5, 1, HEAD)
    for cut in (*range(0, 40, 3), len(whole)):
        harness = Harness(on=answering)
        harness.connections.http2 = Http2Protocol
        made: list[Http2Protocol] = []
        harness.transport.set_protocol = made.append  # type: ignore[attr-defined]
        for piece in (whole[:cut], whole[cut:]):
            (made[-1] if made else harness.protocol).data_received(piece)
        harness.loop.run()
        assert [exchange.request.target for exchange in harness.exchanges] == [b"/a"]
        assert len(harness.connections) == 1


def test_a_preface_is_nothing_special_after_a_request_or_without_http2() -> None:
    harness = Harness(on=answering)
    harness.feed(PREFACE)
    assert harness.status() == b"505"
    harness = Harness(on=answering)
    harness.connections.http2 = Http2Protocol
    harness.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", PREFACE)
    assert b"HTTP/1.1 505" in harness.transport.written


@pytest.mark.parametrize(
    "data",
    [
        PREFACE[:20] + b"xxxx" + encode_settings({}),
        PREFACE + encode_frame(Kind.HEADERS, 5, 1, HEAD),
        PREFACE + SETTINGS_ACK,
    ],
)
def test_a_connection_that_does_not_begin_as_it_must_is_refused(data: bytes) -> None:
    harness = RawHarness(on=answering)
    harness.feed_raw(data)
    assert harness.exchanges == []
    assert harness.goaway() == Code.PROTOCOL_ERROR


# Floods


def _ping(_: int) -> bytes:
    return encode_frame(Kind.PING, 0, 0, bytes(8))


def _settings(_: int) -> bytes:
    return encode_settings({})


def _priority(number: int) -> bytes:
    return encode_frame(Kind.PRIORITY, 0, 2 * number + 1, bytes(5))


def _unknown(_: int) -> bytes:
    return encode_frame(0xEE, 0, 0, b"x")  # type: ignore[arg-type]


def _window(_: int) -> bytes:
    return encode_frame(Kind.WINDOW_UPDATE, 0, 0, b"\0\0\0\x01")


def _empty_data(_: int) -> bytes:
    return encode_frame(Kind.DATA, 0, 1)


def _reset(number: int) -> bytes:
    stream = 2 * number + 3
    head = encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, HEAD)
    return head + encode_rst_stream(stream, Code.CANCEL)


def _large_head(number: int) -> bytes:
    # One line that names the same long entry again and again.
    block = HEAD + b"\x40\x01x\x7f\x81\x17" + b"y" * 3072 + b"\xbe" * 100
    return encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, 2 * number + 3, block)


@pytest.mark.parametrize(
    "flood", [_ping, _settings, _priority, _unknown, _window, _empty_data, _reset, _large_head]
)
def test_a_flood_ends_with_enhance_your_calm(flood: Callable[[int], bytes]) -> None:
    harness = RawHarness().open()
    harness.feed_raw(encode_frame(Kind.HEADERS, END_HEADERS, 1, HEAD))
    sent = 0
    while harness.goaway() is None:
        harness.feed_raw(b"".join(flood(sent + n) for n in range(10)))
        sent += 10
        assert sent <= MAX_NOISE + 10
    assert harness.goaway() == Code.ENHANCE_YOUR_CALM


def test_one_large_settings_frame_is_a_flood_and_a_small_one_counts_by_its_last_values() -> None:
    harness = RawHarness().open()
    many = b"".join(b"\0\4" + size.to_bytes(4) for size in range(2_500))
    harness.feed_raw(encode_frame(Kind.SETTINGS, 0, 0, many))
    assert harness.goaway() == Code.ENHANCE_YOUR_CALM
    harness = RawHarness(on=answering).open()
    few = b"".join(b"\0\4" + size.to_bytes(4) for size in (0, 1 << 20, 3))
    harness.feed_raw(encode_frame(Kind.SETTINGS, 0, 0, few))
    harness.feed_raw(encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, HEAD))
    data = [len(payload) for kind, _, _, payload in harness.frames() if kind == Kind.DATA]
    assert data[0] == 3
    assert harness.goaway() is None


def test_deadlines_of_many_calls_are_no_flood() -> None:
    harness = Http2Harness()
    other = harness.ask()
    for _ in range(10):
        cancelled = [harness.ask(b"POST", ends=False) for _ in range(100)]
        harness.pass_time(1.0)
        for number in cancelled:
            harness.client.reset_stream(number)
        harness.exchange()
    assert harness.goaway is None
    harness.of(other).answer()
    harness.exchange()
    assert harness.responses[other].status == 200


def test_what_is_sent_before_our_settings_are_read_is_refused_and_no_flood() -> None:
    harness = RawHarness(on=answering).open()
    requests = [
        encode_frame(Kind.HEADERS, END_HEADERS, number, HEAD) for number in range(1, 2 * 400, 2)
    ]
    harness.feed_raw(b"".join(requests))
    assert harness.goaway() is None


def test_a_request_whose_headers_are_too_large_is_refused_alone() -> None:
    harness = Http2Harness(ServerLimits(max_header_bytes=20_000), is_checked=False)
    other = harness.ask()
    large = harness.ask(b"GET", b"/a", *[(b"x-%d" % n, b"v" * 500) for n in range(100)])
    assert harness.responses[large].status == 431
    assert harness.goaway is None
    harness.of(other).answer()
    harness.exchange()
    assert harness.responses[other].status == 200


@pytest.mark.parametrize("part", [b"", b"x" * 16_000])
def test_a_header_block_without_an_end_is_not_waited_for(part: bytes) -> None:
    harness = RawHarness().open()
    harness.feed_raw(encode_frame(Kind.HEADERS, 0, 1, HEAD))
    harness.feed_raw(*[encode_frame(Kind.CONTINUATION, 0, 1, part)] * 40)
    assert harness.goaway() == Code.ENHANCE_YOUR_CALM


def test_what_real_clients_send_is_no_flood() -> None:
    harness = Http2Harness(on=answering)
    for _ in range(600):
        number = harness.ask(b"POST", ends=False)
        harness.client.ping(bytes(8))
        harness.send(number, bytes(16_000), ends=True)
        cancelled = harness.ask(b"GET", ends=False)
        harness.client.reset_stream(cancelled)
        harness.exchange()
        harness.pass_time(0.05)
    assert harness.goaway is None
    assert harness.acknowledged == 600


def test_a_peer_that_reads_no_reply_is_cut_off() -> None:
    harness = RawHarness().open()
    harness.transport.is_stuck = True
    sent = 0
    while not harness.transport.aborted:
        harness.feed_raw(*[encode_frame(Kind.PING, 0, 0, bytes(8))] * 100)
        harness.pass_time(1.0)
        sent += 100
        assert sent <= 20_000


# Ends


def test_a_client_that_cancels_a_call_breaks_that_one_alone() -> None:
    harness = Http2Harness()
    cancelled, kept = harness.ask(), harness.ask()
    harness.client.reset_stream(cancelled, h2.errors.ErrorCodes.CANCEL)
    harness.exchange()
    assert harness.of(cancelled).events[-1] == "broken"
    harness.of(kept).answer()
    harness.exchange()
    assert harness.responses[kept].status == 200


def test_a_client_that_leaves_breaks_every_call() -> None:
    harness = Http2Harness()
    harness.ask()
    harness.ask()
    harness.eof()
    assert [exchange.events[-1] for exchange in harness.exchanges] == ["broken", "broken"]
    assert len(harness.connections) == 0


def test_a_drain_lets_calls_finish_and_then_names_the_last_one() -> None:
    harness = Http2Harness()
    first = harness.ask()
    harness.connections.draining = harness.connections.closes_idle = True
    harness.protocol.drain()
    harness.exchange()
    # Real clients fail every call in flight at a GOAWAY.
    assert harness.goaway is None
    second = harness.ask()
    harness.of(first).answer()
    harness.exchange()
    assert harness.goaway is None
    harness.of(second).answer()
    harness.exchange()
    # Nor in the same read as the last response.
    assert harness.goaway is None
    harness.pass_time(3.0)
    harness.exchange()
    assert harness.goaway is not None
    assert (harness.goaway.error_code, harness.goaway.last_stream_id) == (Code.NO_ERROR, second)
    assert [harness.responses[n].status for n in (first, second)] == [200, 200]
    assert harness.transport.is_closing()


def test_a_drain_tells_clients_of_grpc_at_once_which_take_their_next_calls_elsewhere() -> None:
    harness = RawHarness().open()
    head = encode_headers(request_headers(b"POST", b"/a", (b"content-type", b"application/grpc")))
    harness.feed_raw(encode_frame(Kind.HEADERS, END_HEADERS, 1, head))
    harness.connections.draining = harness.connections.closes_idle = True
    harness.protocol.drain()
    harness.loop.run()
    assert encode_goaway(1, Code.NO_ERROR) in harness.transport.written
    # A request that was sent before that is not processed, and may be repeated.
    harness.feed_raw(encode_frame(Kind.HEADERS, END_HEADERS, 3, head))
    assert harness.resets() == [(3, Code.REFUSED_STREAM)]
    harness.last.answer()
    harness.feed_raw(encode_frame(Kind.DATA, END_STREAM, 1))
    assert not harness.transport.is_closing()
    harness.pass_time(3.0)
    assert harness.transport.is_closing()


def test_a_drain_closes_idle_connections_soon() -> None:
    harness = Http2Harness()
    harness.connections.draining = harness.connections.closes_idle = True
    harness.protocol.drain()
    harness.pass_time(3.0)
    harness.exchange()
    assert harness.goaway is not None
    assert harness.transport.is_closing()


def test_an_idle_connection_is_closed_with_goaway_and_a_busy_one_is_not() -> None:
    harness = Http2Harness(ServerLimits(idle_timeout_s=10.0))
    harness.ask()
    harness.pass_time(100.0)
    assert harness.goaway is None
    harness.last.answer()
    harness.exchange()
    harness.pass_time(20.0)
    harness.exchange()
    assert harness.goaway is not None
    assert harness.goaway.error_code == Code.NO_ERROR


def test_requests_keep_a_connection_however_soon_they_are_served() -> None:
    harness = Http2Harness(ServerLimits(idle_timeout_s=10.0), on=answering)
    for _ in range(20):
        harness.ask()
        harness.pass_time(6.0)
    harness.exchange()
    assert harness.goaway is None


def test_pings_do_not_keep_an_idle_connection_or_a_drain() -> None:
    for drains, limit_s in ((False, 20.0), (True, 4.0)):
        harness = Http2Harness(ServerLimits(idle_timeout_s=10.0))
        if drains:
            harness.connections.draining = harness.connections.closes_idle = True
            harness.protocol.drain()
        passed = 0.0
        while harness.goaway is None:
            harness.client.ping(bytes(8))
            harness.exchange()
            harness.pass_time(0.2)
            harness.exchange()
            passed += 0.2
            assert passed < limit_s
        assert harness.goaway.error_code == Code.NO_ERROR


def test_a_call_may_last_longer_than_a_connection_may_be_idle() -> None:
    harness = Http2Harness(ServerLimits(idle_timeout_s=10.0))
    harness.pass_time(5.0)
    number = harness.ask()
    harness.pass_time(100.0)
    harness.last.answer()
    harness.exchange()
    assert harness.responses[number].status == 200
    assert harness.goaway is None
    harness.pass_time(15.0)
    harness.exchange()
    assert harness.goaway is not None


def test_a_head_has_to_come_in_time() -> None:
    for head in (encode_frame(Kind.HEADERS, 0, 1, HEAD), encode_frame(Kind.HEADERS, 4, 1, HEAD)):
        harness = RawHarness(ServerLimits(head_timeout_s=5.0)).open()
        for byte in head[:-1]:
            harness.feed_raw(bytes((byte,)))
            harness.pass_time(0.05)
        harness.feed_raw(*([] if head[4] else [head[-1:]]))
        harness.pass_time(8.0)
        assert harness.goaway() == Code.NO_ERROR
        assert harness.transport.is_closing()


def test_a_body_may_take_its_time_but_not_stall() -> None:
    harness = Http2Harness(ServerLimits(body_stall_s=10.0))
    number = harness.ask(b"POST", ends=False)
    for _ in range(5):
        harness.send(number, b"x")
        harness.pass_time(8.0)
    assert harness.responses[number].headers == []
    harness.pass_time(10.0)
    harness.exchange()
    assert harness.responses[number].status == 408
    assert harness.last.events[-1] == "broken"
    assert harness.goaway is None


def test_a_response_that_its_client_does_not_take_is_given_up() -> None:
    harness = Http2Harness(ServerLimits(write_stall_s=10.0))
    harness.reads = False
    number = harness.ask()
    harness.last.writer.send_head(200, [], None)
    harness.last.writer.send_data(bytes(70_000))
    harness.exchange()
    harness.pass_time(8.0)
    assert "broken" not in harness.last.events
    harness.pass_time(10.0)
    harness.exchange()
    assert harness.responses[number].reset == Code.CANCEL
    assert harness.last.events[-1] == "broken"
    assert harness.protocol.held_bytes == 0


def test_one_connection_cannot_keep_the_loop_busy() -> None:
    harness = RawHarness(on=answering).open()
    frames = b"".join(
        encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, number, HEAD)
        for number in range(1, 401, 2)
    )
    harness.protocol.data_received(frames)
    assert len(harness.exchanges) <= 64
    harness.loop.run()
    assert len(harness.exchanges) == 200


def test_a_settings_acknowledgement_is_sent_and_taken() -> None:
    harness = RawHarness().open()
    harness.feed_raw(SETTINGS_ACK)
    assert harness.transport.written.count(SETTINGS_ACK) == 1
    assert harness.goaway() is None


_PARTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from([b"GET", b"POST", b"HEAD"]), st.booleans()),
        st.tuples(st.just("data"), st.integers(0, 3), st.integers(0, 2000)),
        st.tuples(st.just("end"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("reset"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("ping"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


def _stream_of(parts: list[tuple[str, Any, Any]]) -> bytes:
    """Return the bytes of a client that keeps to the rules."""
    client = h2.connection.H2Connection()
    client.initiate_connection()
    open_streams: list[int] = []
    for kind, first, second in parts:
        if kind == "ask":
            number = client.get_next_available_stream_id()
            client.send_headers(number, request_headers(first), end_stream=second)
            if not second:
                open_streams.append(number)
        elif kind == "ping":
            client.ping(bytes(8))
        elif open_streams:
            number = open_streams[first % len(open_streams)]
            if kind == "data":
                client.send_data(number, b"d" * second)
                continue
            open_streams.remove(number)
            if kind == "end":
                client.end_stream(number)
            else:
                client.reset_stream(number)
    data: bytes = client.data_to_send()
    return data


def _seen(harness: RawHarness) -> list[Any]:
    seen: list[Any] = []
    for one in harness.exchanges:
        request = one.request
        seen.append((request.method, request.target, request.body_bytes, one.body_bytes))
        seen.append(("end" in one.events, one.events[-1:] == ["broken"]))
    return seen


@given(_PARTS, st.lists(st.integers(0, 3000), max_size=6))
def test_any_split_gives_the_same_requests(
    parts: list[tuple[str, Any, Any]], cuts: list[int]
) -> None:
    data = _stream_of(parts)
    whole, cut = RawHarness(), RawHarness()
    whole.feed_raw(data)
    at = sorted({0, len(data), *(one for one in cuts if one < len(data))})
    cut.feed_raw(*[data[begin:end] for begin, end in pairwise(at)])
    assert _seen(cut) == _seen(whole)
    assert cut.goaway() == whole.goaway() is None
    assert cut.resets() == whole.resets() == []


@given(_PARTS, st.lists(st.tuples(st.integers(24, 3000), st.integers(0, 255)), max_size=8))
def test_no_bytes_break_more_than_the_connection(
    parts: list[tuple[str, Any, Any]], changes: list[tuple[int, int]]
) -> None:
    data = bytearray(_stream_of(parts))
    for at, value in changes:
        data[at % len(data)] = value
    harness = RawHarness(on=answering)
    harness.feed_raw(bytes(data))
    harness.pass_time(200.0)
    harness.loop.run()
    assert len(harness.connections) == 0
    # Each exchange is over, and `Exchange` has seen that none was called afterwards.
    assert all(one.is_over or one.events[-1:] == ["broken"] for one in harness.exchanges)
    assert harness.protocol.held_bytes == 0
