"""One connection as transcripts, and as properties over any bytes in any pieces."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http1.body import MAX_STEPS
from http1.server.http_error import HttpError
from http1.server.limits import ServerLimits
from http1.server.protocol import LAST_IDLE_S
from tests.support.edge_harness import PEER, Exchange, Harness, answering

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED_POST = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(body: bytes, target: bytes = b"/p", more: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%b\r\n%b" % (
        target,
        len(body),
        more,
        body,
    )


def without_date(wire: bytes) -> bytes:
    return re.sub(rb"date: [^\r]*\r\n", b"", wire)


# One exchange


def test_a_request_and_its_response_take_one_write() -> None:
    harness = Harness(on=answering)
    harness.feed(post(b"hello"))
    assert harness.last.events == ["data", "end"]
    assert without_date(harness.transport.written) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nserver: invocation-gateway\r\n\r\n/p hello"
    )
    assert re.search(
        rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", harness.transport.written
    )
    assert harness.transport.writes == 1
    assert not harness.transport.is_closing()


def test_a_response_written_later_leaves_in_one_write_of_the_same_turn() -> None:
    harness = Harness()
    harness.feed(GET)
    harness.last.writer.send_head(200, [], None)
    harness.last.writer.send_data(b"data: 1\n\n")
    harness.last.writer.send_data(b"data: 2\n\n")
    assert harness.transport.written == b""
    harness.loop.run()
    assert harness.transport.writes == 1
    assert harness.transport.written.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n")
    harness.last.writer.send_end()
    harness.loop.run()
    assert harness.transport.written.endswith(b"\r\n0\r\n\r\n")


def test_the_workers_own_date_and_server_are_not_repeated() -> None:
    harness = Harness()
    harness.feed(GET)
    harness.last.answer(headers=[(b"date", b"then"), (b"server", b"uvicorn")])
    harness.loop.run()
    assert harness.transport.written.count(b"date:") == 1
    assert harness.transport.written.count(b"server:") == 1


def test_a_response_to_head_has_the_length_and_no_body() -> None:
    harness = Harness(on=answering)
    harness.feed(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"content-length: 3\r\n" in harness.transport.written
    assert harness.transport.written.endswith(b"\r\n\r\n")


def test_a_body_of_unknown_length_to_http_1_0_ends_with_the_connection() -> None:
    harness = Harness()
    harness.feed(b"GET /a HTTP/1.0\r\n\r\n")
    harness.last.writer.send_head(200, [], None)
    harness.last.writer.send_data(b"x")
    harness.last.is_over = True
    harness.last.writer.send_end()
    harness.loop.run()
    assert b"connection: close\r\n" in harness.transport.written
    assert harness.transport.written.endswith(b"\r\n\r\nx")
    assert harness.transport.is_closing()
    assert not harness.transport.aborted


def test_interim_responses_come_before_the_head_and_never_to_http_1_0() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    for version, expected in ((b"1.1", hint), (b"1.0", b"")):
        harness = Harness()
        harness.feed(b"GET /a HTTP/%b\r\nhost: f.example\r\n\r\n" % version)
        harness.last.writer.send_interim(103, [(b"link", b"x")])
        harness.loop.run()
        assert harness.transport.written == expected
        harness.last.answer()
        harness.loop.run()
        assert harness.transport.written.startswith(expected + b"HTTP/1.1 200 OK\r\n")
        harness.last.writer.send_interim(103, [])
        harness.loop.run()
        assert harness.transport.written.count(b" 103 ") == len(expected[:1])


def test_an_interim_response_is_dropped_while_the_client_reads_slowly() -> None:
    harness = Harness()
    harness.transport.is_stuck = True
    harness.feed(GET)
    harness.last.writer.send_interim(103, [(b"link", b"x" * 70_000)])
    harness.loop.run()
    assert harness.last.writer.is_writing_paused()
    harness.last.writer.send_interim(103, [])
    harness.loop.run()
    assert harness.transport.written.count(b" 103 ") == 1


@pytest.mark.parametrize("sent", [b"", b"four"])
def test_a_response_shorter_than_announced_is_reset(sent: bytes) -> None:
    harness = Harness()
    harness.feed(GET)
    harness.last.writer.send_head(200, [], 5)
    harness.last.writer.send_data(sent)
    harness.last.is_over = True
    harness.last.writer.send_end()
    assert harness.transport.aborted
    assert harness.transport.socket.resets
    harness.loop.run()


def test_a_response_longer_than_announced_is_reset_and_its_stream_breaks() -> None:
    harness = Harness()
    harness.feed(GET)
    harness.last.writer.send_head(200, [], 5)
    harness.last.writer.send_data(b"sixsix")
    assert harness.last.events == ["end", "broken"]
    assert harness.transport.aborted


@pytest.mark.parametrize(
    ("te", "tail"),
    [
        (b"", b"0\r\n\r\n"),
        (b"te: trailers\r\n", b"0\r\nx-sum: 1\r\n\r\n"),
        (b"TE: deflate;q=0.5 , Trailers\r\n", b"0\r\nx-sum: 1\r\n\r\n"),
        (b"te: trailers;q=1\r\n", b"0\r\nx-sum: 1\r\n\r\n"),
        (b"te: gzip, trailers ; q=0.001\r\n", b"0\r\nx-sum: 1\r\n\r\n"),
        (b"te: trailers;q=0.5,deflate\r\n", b"0\r\nx-sum: 1\r\n\r\n"),
        (b"te: trailers;q=0\r\n", b"0\r\n\r\n"),
        (b"te: trailers;q=0.000, deflate\r\n", b"0\r\n\r\n"),
        (b"te: trailers;q=high\r\n", b"0\r\n\r\n"),
        (b"te: x-trailers\r\n", b"0\r\n\r\n"),
        (b"te: deflate\r\n", b"0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("length", [None, 2])
def test_trailers_go_to_who_asked_for_them_and_never_into_a_sized_response(
    te: bytes, tail: bytes, length: int | None
) -> None:
    harness = Harness()
    harness.feed(b"GET / HTTP/1.1\r\nhost: h\r\n" + te + b"\r\n")
    writer = harness.last.writer
    writer.send_head(200, [], length)
    writer.send_data(b"ok")
    writer.add_trailers([(b"x-sum", b"1")])
    harness.last.is_over = True
    writer.send_end()
    harness.feed()
    head, _, body = harness.transport.written.partition(b"\r\n\r\n")
    assert b"x-sum" not in head
    assert body == (b"2\r\nok\r\n" + tail if length is None else b"ok")


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_trailers_of_a_request_are_no_headers_and_break_nothing(cuts: list[int]) -> None:
    wire = (
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"
        b"0\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\nX-Long: %b\r\n\r\n" % (b"y" * 2000)
    )
    bounds = sorted({0, *(cut % len(wire) for cut in cuts), len(wire)})
    harness = Harness(on=answering)
    harness.feed(*(wire[a:b] for a, b in pairwise(bounds)), b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    first = harness.exchanges[0]
    assert first.body_bytes == b"ok"
    assert [name for name, _ in first.request.headers] == [b"host", b"transfer-encoding"]
    assert [name for name, _ in first.trailers][:2] == [b"content-length", b"transfer-encoding"]
    assert len(harness.exchanges) == 2


def test_calls_after_the_end_do_not_touch_the_next_response() -> None:
    harness = Harness(on=answering)
    harness.feed(GET)
    old = harness.last.writer
    harness.on = lambda event, exchange: None
    harness.feed(GET)
    written = harness.transport.written
    old.send_data(b"late")
    old.send_end()
    old.abort()
    harness.loop.run()
    assert harness.transport.written == written
    assert not harness.transport.is_closing()


def test_a_dispatch_that_raises_gets_500_and_the_connection_closes() -> None:
    def fail(event: str, exchange: Exchange) -> None:
        if event == "dispatch":
            raise RuntimeError("a bug")

    harness = Harness(on=fail)
    harness.feed(GET)
    assert harness.status() == b"500"
    assert b"a bug" not in harness.transport.written
    assert problem(harness)["instance"] == "/a"
    assert harness.transport.eof_written


# Error responses


def problem(harness: Harness) -> dict[str, Any]:
    """Return the document of the answer that came last, which is a whole one."""
    head, _, body = harness.transport.written.rpartition(b"\r\n\r\n")
    document: dict[str, Any] = json.loads(body)
    assert b"\r\ncontent-type: application/problem+json" in head
    assert b"HTTP/1.1 %d " % document["status"] in head
    assert document["type"].startswith("urn:nvcf:problem-details:")
    assert document["title"]
    assert document["detail"]
    assert b"\r\nx-request-id: %b\r\n" % document["requestId"].encode() in head
    assert len(document["requestId"]) == 36
    return document


@pytest.mark.parametrize(
    ("wire", "status", "path"),
    [
        (b"GET /a?b HTTP/1.1\r\n\r\n", b"400", "/a"),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\nY: b\r\n\r\n", b"400", "/a"),
        (b"\x16\x03\x01\x02\x00" + b"x" * 17_000, b"414", None),
        (b"GET /" + b"a" * 17_000, b"414", None),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 66_000, b"431", "/"),
        (CHUNKED_POST + b"5\nhello\r\n", b"400", "/c"),
        (CHUNKED_POST + b"5\r\nhelloo\r\n", b"400", "/c"),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", b"501", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505", None),
        (b"GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", b"417", "/"),
    ],
)
def test_invalid_bytes_get_a_problem_and_the_connection_closes(
    wire: bytes, status: bytes, path: str | None
) -> None:
    harness = Harness()
    harness.feed(wire)
    assert harness.exchanges == []
    assert harness.status() == status
    assert b"\r\nconnection: close" in harness.transport.written
    assert problem(harness).get("instance") == path
    assert harness.transport.eof_written
    harness.feed(GET)
    assert harness.exchanges == []


def test_a_body_that_breaks_its_coding_breaks_the_stream_before_the_error_response() -> None:
    harness = Harness()
    harness.feed(CHUNKED_POST + b"5\r\nhello\r\n", b"zz\r\n")
    assert harness.last.events == ["data", "first_part_end", "broken"]
    assert harness.status() == b"400"
    assert problem(harness)["instance"] == "/c"


@pytest.mark.parametrize(
    ("pieces", "path"),
    [([b"GET /b?", b"c HTTP/1.1\r\nHost: x y\r\n\r\n"], "/b"), ([b"GET ", b"/b\n"], None)],
)
def test_an_error_does_not_name_the_path_of_the_request_before(
    pieces: list[bytes], path: str | None
) -> None:
    harness = Harness(on=answering)
    harness.feed(GET, *pieces)
    assert problem(harness).get("instance") == path


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"HEAD /a#b HTTP/1.1\r\nHost: h\r\n\r\n", b"400"),
        (b"HEAD a HTTP/1.1\r\nHost: h\r\n\r\n", b"400"),
        (b"HEAD /a HTTP/1.1\r\n\r\n", b"400"),
        (b"HEAD /a HTTP/1.1\nHost: h\n\n", b"400"),
        (b"HEAD /a HTTP/3.0\r\nHost: h\r\n\r\n", b"505"),
        (b"HEAD /" + b"a" * 17_000, b"414"),
        (b"HEAD /a HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 70_000, b"431"),
        (b"HEAD /a HTTP/1.1\r\nHost: h\r\n", b"408"),
        (CHUNKED_POST.replace(b"POST", b"HEAD") + b"no size\r\n", b"400"),
        (post(b"late").replace(b"POST", b"HEAD")[:-1], b"408"),
    ],
    ids=lambda value: repr(value)[2:40],
)
def test_the_response_to_a_head_request_that_fails_has_no_body(wire: bytes, status: bytes) -> None:
    harness = Harness(ServerLimits(head_timeout_s=2, body_stall_s=2))
    harness.feed(wire)
    harness.pass_time(3)
    assert harness.status() == status
    assert re.search(rb"\r\ncontent-length: [1-9]", harness.transport.written)
    assert harness.transport.written.endswith(b"\r\nconnection: close\r\n\r\n")


def test_a_body_that_reads_like_a_head_request_does_not_take_the_errors_body() -> None:
    harness = Harness(ServerLimits(body_stall_s=2))
    harness.feed(CHUNKED_POST + b"5\r\nHEAD \r\n")
    harness.feed(b"HEAD \r\n")
    assert harness.status() == b"400"
    assert not harness.transport.written.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        (b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", "/p"),
        (b"GET /a HTTP/1.1\r\nHo", "/a"),
        (b"GET /a", None),
    ],
)
def test_a_408_names_the_path_if_it_is_known(wire: bytes, path: str | None) -> None:
    harness = Harness(ServerLimits(head_timeout_s=2, body_stall_s=2))
    harness.feed(GET)
    harness.last.answer()
    harness.feed(wire)
    harness.pass_time(6)
    document = problem(harness)
    assert (document["status"], document.get("instance")) == (408, path)


def test_one_connection_too_many_gets_a_problem_with_an_id() -> None:
    assert problem(Harness(ServerLimits(max_connections=0)))["status"] == 503


def test_an_upgrade_is_served_as_plain_http() -> None:
    harness = Harness(on=answering)
    harness.feed(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + GET)
    assert len(harness.exchanges) == 2


# Bodies


def test_a_body_of_unknown_length_announces_its_first_part_once() -> None:
    harness = Harness()
    harness.feed(CHUNKED_POST + b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n")
    assert harness.last.events == ["data", "first_part_end", "data", "end"]
    assert harness.last.request.body_bytes is None


def test_a_chunked_body_that_arrived_completely_has_no_first_part() -> None:
    harness = Harness()
    harness.feed(CHUNKED_POST + b"1\r\na\r\n0\r\n\r\n")
    assert harness.last.events == ["data", "end"]


CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("more", [b"", b"3\r\nabc\r\n"])
def test_chunks_that_come_one_by_one_are_passed_on_to_who_takes_them(more: bytes) -> None:
    taken = []
    harness = Harness()
    harness.feed(CHUNKED + more)
    harness.last.writer.pass_chunks(lambda chunk, size: taken.append((chunk, size)))
    harness.feed(b"2\r\nok\r\n", b"1\r\n!\r\n" * 2, b"2\r\nno", b"\r\n", b"A\r\n0123456789\r\n")
    assert taken == [(b"2\r\nok\r\n", 2), (b"A\r\n0123456789\r\n", 10)]
    harness.feed(b"0\r\n\r\n")
    assert harness.last.events[-1] == "end"
    assert harness.last.body_bytes == more[3:6] + b"!!no"


def test_a_paused_body_passes_no_chunk_on_and_a_fault_at_one_ends_the_exchange() -> None:
    def fail(chunk: bytes, size: int) -> None:
        raise ZeroDivisionError

    harness = Harness()
    harness.feed(CHUNKED)
    harness.last.writer.pass_chunks(fail)
    harness.last.writer.pause_reading()
    harness.feed(b"2\r\nok\r\n")
    assert harness.status() == b""
    harness.last.writer.resume_reading()
    harness.loop.run()
    assert harness.last.body_bytes == b"ok"
    harness.feed(b"2\r\nok\r\n")
    assert harness.status() == b"500"
    assert harness.last.events[-1] == "broken"


def test_a_body_whose_chunks_are_passed_on_may_not_stall() -> None:
    harness = Harness(ServerLimits(body_stall_s=10))
    harness.feed(CHUNKED)
    harness.last.writer.pass_chunks(lambda chunk, size: None)
    for _ in range(5):
        harness.pass_time(8)
        harness.feed(b"2\r\nok\r\n")
    assert harness.status() == b""
    harness.pass_time(12)
    assert harness.status() == b"408"


def test_a_large_body_comes_in_bounded_segments() -> None:
    harness = Harness()
    harness.feed(post(b"x" * 200_000))
    assert harness.last.events == ["data"] * 4 + ["end"]


def test_a_paused_body_is_read_to_the_high_water_mark_and_no_further() -> None:
    harness = Harness()
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n"
    harness.feed(head + b"a" * 10)
    harness.last.writer.pause_reading()
    harness.feed(b"b" * 60_000)
    assert harness.transport.is_reading
    harness.protocol.data_received(b"c" * 10_000)
    assert not harness.transport.is_reading
    assert harness.last.body_bytes == b"a" * 10
    harness.last.writer.resume_reading()
    assert harness.last.body_bytes == b"a" * 10, "delivered inside the call"
    harness.loop.run()
    assert harness.last.body_bytes == b"a" * 10 + b"b" * 60_000 + b"c" * 10_000
    assert harness.transport.is_reading


@pytest.mark.parametrize("length", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_100_continue_is_sent_when_the_body_is_wanted(length: bytes) -> None:
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n%b\r\n\r\n" % length
    at_once = Harness()
    at_once.feed(head)
    assert at_once.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"

    later = Harness(on=lambda event, it: event == "dispatch" and it.writer.pause_reading())
    later.feed(head)
    assert later.transport.written == b""
    later.last.writer.resume_reading()
    later.loop.run()
    assert later.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"

    never = Harness(on=lambda event, it: event == "dispatch" and it.answer(status=401))
    never.feed(head)
    assert never.status() == b"401"
    assert b"connection: close" in never.transport.written


@pytest.mark.parametrize("length", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_body_that_is_refused_or_not_wanted_after_all_gets_no_100_continue(length: bytes) -> None:
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n%b\r\n\r\n" % length
    refused = Harness(on=lambda event, it: event == "dispatch" and it.writer.pause_reading())
    refused.feed(head)
    refused.last.writer.resume_reading()
    refused.last.answer(status=413)
    refused.loop.run()
    assert refused.status() == b"413"
    assert b"100 Continue" not in refused.transport.written

    paused = Harness(on=lambda event, it: event == "dispatch" and it.writer.pause_reading())
    paused.feed(head)
    paused.last.writer.resume_reading()
    paused.last.writer.pause_reading()
    paused.loop.run()
    assert paused.transport.written == b""
    paused.last.writer.resume_reading()
    paused.loop.run()
    assert paused.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    paused.feed(b"hello" if length.startswith(b"Content") else b"5\r\nhello\r\n0\r\n\r\n")
    paused.loop.run()
    assert paused.last.body_bytes == b"hello"


def test_an_early_response_closes_and_lets_the_client_finish_for_a_while() -> None:
    harness = Harness(ServerLimits(linger_s=5, linger_bytes=100))
    harness.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc")
    harness.last.answer(status=413)
    harness.loop.run()
    assert b"connection: close\r\n" in harness.transport.written
    assert harness.transport.eof_written
    assert not harness.transport.is_closing()
    harness.feed(b"x" * 100)
    assert not harness.transport.is_closing()
    harness.feed(b"x")
    assert harness.transport.is_closing()


def test_lingering_ends_in_time() -> None:
    harness = Harness(ServerLimits(linger_s=5))
    harness.feed(b"BAD\r\n\r\n")
    harness.pass_time(4)
    assert not harness.transport.is_closing()
    harness.pass_time(3.1)
    assert harness.transport.is_closing()


def test_an_early_response_to_a_body_that_arrived_completely_keeps_the_connection() -> None:
    harness = Harness(on=lambda event, it: event == "dispatch" and it.answer(status=401))
    harness.feed(post(b"hello") + GET)
    assert len(harness.exchanges) == 2
    assert b"connection" not in harness.transport.written


# Pipelining


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    harness = Harness()
    harness.feed(post(b"1", b"/1") + post(b"2", b"/2") + post(b"3", b"/3"))
    for number in (b"1", b"2", b"3"):
        assert [it.request.target for it in harness.exchanges][-1] == b"/" + number
        assert harness.last.body_bytes == number
        harness.last.answer(number)
        harness.loop.run()
    answers = re.findall(rb"\r\n\r\n(\d)", harness.transport.written)
    assert answers == [b"1", b"2", b"3"]


def test_pipelined_requests_with_immediate_responses_take_one_write() -> None:
    harness = Harness(on=answering)
    harness.feed(post(b"x") * 32)
    assert len(harness.exchanges) == 32
    assert harness.transport.writes == 1


def test_one_connection_cannot_keep_the_loop_busy() -> None:
    harness = Harness(ServerLimits(max_pipelined=3), on=answering)
    harness.protocol.data_received(GET * 7)
    assert len(harness.exchanges) == 3
    harness.loop.run()
    assert len(harness.exchanges) == 7


def test_small_chunks_are_read_in_bounded_parts_and_the_socket_waits_meanwhile() -> None:
    it = Harness()
    count = 30 * MAX_STEPS
    it.feed(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    it.protocol.data_received(b"1\r\nz\r\n" * count)
    assert len(it.last.body_bytes) == MAX_STEPS
    assert not it.transport.is_reading
    it.loop.run()
    assert len(it.last.body_bytes) == count
    assert it.transport.is_reading
    it.feed(b"0\r\n\r\n")
    assert it.last.events[-1] == "end"


def test_large_heads_sent_ahead_take_a_turn_each() -> None:
    it = Harness(on=answering)
    head = GET[:-2] + b"".join(b"A%d: %b\r\n" % (n, b"v" * 500) for n in range(100)) + b"\r\n"
    it.protocol.data_received(head * 8)
    assert len(it.exchanges) == 2
    it.loop.run()
    assert len(it.exchanges) == 8


def test_a_few_empty_lines_before_a_request_are_skipped_and_many_are_refused() -> None:
    it = Harness()
    it.feed(b"\r\n" * 8 + GET)
    assert it.exchanges
    it = Harness()
    it.feed(b"\r\n" * 1000 + GET)
    assert it.transport.written.startswith(b"HTTP/1.1 400 ")


def test_requests_sent_ahead_are_held_up_to_the_high_water_mark() -> None:
    harness = Harness()
    harness.protocol.data_received(GET + post(b"x" * 70_000))
    assert not harness.transport.is_reading
    harness.last.answer()
    harness.loop.run()
    assert harness.transport.is_reading
    assert len(harness.exchanges) == 2
    assert harness.last.events[-1] == "end"


def test_no_further_request_is_served_while_the_client_reads_nothing() -> None:
    harness = Harness(on=lambda event, it: event == "end" and it.answer(b"x" * 70_000))
    harness.transport.is_stuck = True
    harness.feed(GET + GET)
    assert len(harness.exchanges) == 1
    harness.transport.drain()
    harness.loop.run()
    assert len(harness.exchanges) == 2


# Backpressure


def test_a_client_that_reads_slowly_pauses_and_resumes_the_producer() -> None:
    harness = Harness()
    harness.transport.is_stuck = True
    harness.feed(GET)
    harness.last.writer.send_head(200, [], None)
    harness.last.writer.send_data(b"x" * 70_000)
    assert harness.last.events == ["end", "pause_writing"], "told before the call returned"
    assert harness.last.writer.is_writing_paused()
    harness.transport.drain()
    assert harness.last.events[-1] == "resume_writing"
    assert not harness.last.writer.is_writing_paused()


# Leaving


def test_a_client_that_leaves_breaks_the_stream_at_once() -> None:
    harness = Harness()
    harness.feed(GET)
    harness.protocol.connection_lost(ConnectionResetError())
    assert harness.last.events == ["end", "broken"]
    assert len(harness.connections) == 0


def test_a_half_closed_client_gets_its_responses_and_then_the_end() -> None:
    harness = Harness()
    harness.feed(GET + GET)
    harness.eof()
    assert harness.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n", "is it still there?"
    harness.last.answer()
    harness.loop.run()
    harness.last.answer()
    harness.loop.run()
    assert harness.transport.written.count(b"HTTP/1.1 200 OK") == 2
    assert harness.transport.is_closing()


def test_a_reset_distinguishes_a_closed_client_from_a_half_closed_one() -> None:
    harness = Harness()
    harness.feed(GET)
    harness.transport.socket.error = 32
    harness.protocol.eof_received()
    assert harness.last.events == ["end", "broken"], "in the same turn"
    assert harness.transport.aborted


def test_a_half_closed_client_that_resets_later_is_noticed_at_the_next_check() -> None:
    harness = Harness()
    harness.feed(GET)
    harness.eof()
    harness.transport.socket.error = 32
    harness.pass_time(1)
    assert harness.last.events == ["end", "broken"]


def test_a_peer_behind_unread_bytes_is_probed_once() -> None:
    harness = Harness()
    harness.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n")
    harness.last.writer.pause_reading()
    harness.protocol.data_received(b"x" * 100_000)
    harness.transport.socket.tcp_state = 8
    harness.pass_time(1)
    harness.pass_time(1)
    assert harness.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    harness.transport.socket.error = 104
    harness.pass_time(1)
    assert harness.last.events == ["broken"]


def test_an_http_1_0_client_that_sends_eof_has_left() -> None:
    harness = Harness()
    harness.feed(b"GET / HTTP/1.0\r\n\r\n")
    harness.eof()
    assert harness.last.events == ["end", "broken"]


@pytest.mark.parametrize(
    "wire",
    [
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcd",
        CHUNKED_POST + b"5\r\nabcd",
        CHUNKED_POST + b"4\r\nabcd\r\n",
    ],
)
@pytest.mark.parametrize("is_paused", [False, True])
def test_a_client_that_leaves_before_its_bodys_end_breaks_the_stream(
    wire: bytes, is_paused: bool
) -> None:
    harness = Harness()
    harness.feed(wire)
    if is_paused:
        harness.last.writer.pause_reading()
    harness.eof()
    assert harness.last.events[-1] == "broken"
    assert harness.status() == b"400"
    assert harness.transport.is_closing()


def test_a_paused_client_that_resets_is_noticed_at_the_next_check() -> None:
    harness = Harness()
    harness.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n")
    harness.last.writer.pause_reading()
    harness.protocol.data_received(b"x" * 100_000)
    harness.transport.socket.error = 104
    harness.pass_time(1)
    assert harness.last.events == ["broken"]


def test_a_body_that_ends_in_held_bytes_survives_eof() -> None:
    harness = Harness()
    harness.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    harness.last.writer.pause_reading()
    harness.feed(b"hello")
    harness.eof()
    harness.last.writer.resume_reading()
    harness.loop.run()
    assert harness.last.events == ["data", "end"]


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET / HTTP/1.1\nHost: h\n\n",),
        (b"GET / HTTP/1.1\r\nHost: h", b"\n"),
        (b"GET / HTTP/1.1\r", b"\nHost: h\r", b"\nX: y", b"\n"),
        (b"\n",),
    ],
)
def test_a_bare_lf_is_refused_at_once_and_not_waited_for(pieces: tuple[bytes, ...]) -> None:
    harness = Harness()
    harness.feed(*pieces[:-1])
    assert harness.transport.written == b""
    harness.feed(pieces[-1])
    assert harness.status() == b"400"
    assert harness.transport.eof_written


# Time

LIMITS = ServerLimits(head_timeout_s=10, body_stall_s=20, write_stall_s=30, idle_timeout_s=40)


def test_an_idle_connection_is_closed_without_a_response() -> None:
    harness = Harness(LIMITS, on=answering)
    harness.feed(GET)
    harness.transport.written = b""
    harness.pass_time(39.9)
    assert not harness.transport.is_closing()
    harness.pass_time(2.1)
    assert harness.transport.is_closing()
    assert harness.transport.written == b""


def test_a_request_that_came_while_the_process_stood_still_is_read_before_a_limit_applies() -> None:
    harness = Harness(LIMITS, on=answering)
    harness.pass_time(39)
    harness.stand_still(100)
    assert not harness.transport.is_closing()
    harness.feed(GET)
    harness.pass_time(39)
    assert harness.status() == b"200"
    assert not harness.transport.is_closing()
    harness.pass_time(3.1)
    assert harness.transport.is_closing()


def test_a_standstill_is_no_stall_of_the_client() -> None:
    harness = Harness(LIMITS)
    harness.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    harness.stand_still(100)
    # Read before the next check: its deadline does not come early either.
    harness.feed(b"x")
    harness.pass_time(19)
    assert harness.last.events == ["data"]
    harness.pass_time(3.1)
    assert harness.status() == b"408"


def test_a_client_that_could_not_read_because_the_process_stood_still_is_not_reset() -> None:
    harness = Harness(LIMITS)
    harness.transport.is_stuck = True
    harness.feed(GET)
    harness.last.writer.send_head(200, [], None)
    harness.last.writer.send_data(b"x" * 1000)
    harness.loop.run()
    harness.pass_time(20)
    harness.stand_still(100)
    harness.pass_time(9)
    assert not harness.transport.aborted
    harness.pass_time(4)
    assert harness.transport.aborted


def test_a_head_has_to_come_in_time_however_it_trickles() -> None:
    harness = Harness(LIMITS)
    for _ in range(9):
        harness.feed(b"G")
        harness.pass_time(1)
    assert harness.transport.written == b""
    harness.pass_time(3.1)
    assert harness.status() == b"408"


def test_a_body_may_take_its_time_but_not_stall() -> None:
    harness = Harness(LIMITS)
    harness.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    for _ in range(3):
        harness.pass_time(19)
        harness.feed(b"x")
    assert harness.last.events == ["data"] * 3
    harness.pass_time(22.1)
    assert harness.last.events[-1] == "broken"
    assert harness.status() == b"408"


def test_a_body_that_is_not_wanted_has_no_time_limit() -> None:
    harness = Harness(LIMITS)
    harness.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    harness.last.writer.pause_reading()
    harness.pass_time(1000)
    assert harness.last.events == []
    harness.last.writer.resume_reading()
    harness.pass_time(22.1)
    assert harness.last.events == ["broken"]


def test_waiting_for_the_response_has_no_time_limit_here() -> None:
    harness = Harness(LIMITS)
    harness.feed(GET)
    harness.pass_time(4000)
    assert harness.last.events == ["end"]


def test_a_client_that_reads_nothing_is_reset_and_one_that_reads_little_is_not() -> None:
    harness = Harness(LIMITS)
    harness.transport.is_stuck = True
    harness.feed(GET)
    harness.last.writer.send_head(200, [], None)
    harness.last.writer.send_data(b"x" * 1000)
    harness.loop.run()
    for _ in range(10):
        harness.pass_time(29)
        harness.transport.buffered -= 1
    assert not harness.transport.aborted
    harness.pass_time(32.1)
    assert harness.transport.aborted
    assert harness.last.events[-1] == "broken"


def test_a_client_that_reads_nothing_from_the_first_byte_on_is_reset() -> None:
    harness = Harness(LIMITS)
    harness.pass_time(35)
    harness.transport.is_stuck = True
    harness.feed(GET)
    harness.last.writer.send_head(200, [], None)
    harness.loop.run()
    harness.pass_time(29)
    assert not harness.transport.aborted
    harness.pass_time(3.1)
    assert harness.transport.aborted


# Draining


def test_draining_closes_idle_connections_and_busy_ones_after_their_response() -> None:
    idle = Harness()
    idle.connections.draining = True
    idle.protocol.drain()
    assert idle.transport.is_closing()

    busy = Harness()
    busy.feed(GET)
    busy.connections.draining = True
    busy.protocol.drain()
    assert not busy.transport.is_closing()
    busy.last.answer()
    busy.loop.run()
    assert b"connection: close\r\n" in busy.transport.written
    assert busy.transport.is_closing()


def test_a_response_that_could_not_announce_the_drain_is_followed_by_one_that_does() -> None:
    it = Harness()
    it.feed(GET)
    it.last.writer.send_head(200, [], 2)
    it.connections.draining = it.connections.closes_idle = True
    it.last.writer.send_data(b"ok")
    it.last.writer.send_end()
    it.loop.run()
    assert b"connection: close\r\n" not in it.transport.written
    assert not it.transport.is_closing()
    it.feed(GET)
    it.last.answer()
    it.loop.run()
    assert b"connection: close\r\n" in it.transport.written
    assert it.transport.is_closing()


def test_after_the_drain_began_a_connection_idles_only_shortly() -> None:
    it = Harness()
    it.feed(GET)
    it.last.writer.send_head(200, [], 0)
    it.connections.draining = it.connections.closes_idle = True
    it.last.writer.send_end()
    it.loop.run()
    it.pass_time(LAST_IDLE_S + 2.1)
    assert it.transport.is_closing()


# What a connection shows of its state


def test_a_connection_shows_its_state() -> None:
    harness = Harness()
    assert repr(harness.protocol) == "<Http1Protocol OPEN, reading, writing>"
    assert repr(harness.connections) == "<Connections 1 open>"
    harness.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
    assert repr(harness.last.writer) == "<Http1Response NOT_STARTED>"
    harness.last.writer.pause_reading()
    harness.protocol.data_received(b"x" * 70_000)
    assert harness.protocol.held_bytes == 70_000
    assert not harness.protocol.is_reading
    assert repr(harness.protocol) == "<Http1Protocol OPEN, reading paused, writing>"
    harness.last.answer()
    assert repr(harness.last.writer) == "<Http1Response over>"
    assert repr(harness.protocol) == "<Http1Protocol LINGERING, reading, writing>"


# Any bytes, any pieces


def test_a_request_knows_the_address_of_its_peer() -> None:
    harness = Harness(on=answering)
    harness.feed(GET)
    (exchange,) = harness.exchanges
    assert exchange.request.peer.address == PEER


def test_an_error_response_is_reported_with_what_is_known_of_its_request() -> None:
    harness = Harness(on=answering)
    reported: list[tuple[int, str, bytes, str]] = []

    def on_error(error: HttpError, target: bytes, peer: str, request_id: str) -> None:
        assert request_id
        reported.append((error.status, error.kind, target, peer))

    harness.connections.on_error = on_error
    harness.feed(b"GET /a?b HTTP/1.1\r\n\r\n")
    assert reported == [(400, "invalid-host", b"/a", PEER)]


def test_a_head_cut_anywhere_is_found() -> None:
    for at in range(1, len(GET)):
        harness = Harness(on=answering)
        harness.feed(GET[:at], GET[at:])
        assert len(harness.exchanges) == 1, at


TARGETS = st.sampled_from([b"/", b"/a?b=c", b"/%20"])
BODIES = st.binary(max_size=40)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    target, body = draw(TARGETS), draw(BODIES)
    kind = draw(st.sampled_from(["get", "sized", "chunked", "expect"]))
    blank = draw(st.sampled_from([b"", b"", b"\r\n"]))
    if kind == "get":
        return blank + b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target
    if kind == "sized":
        return blank + post(body, target)
    if kind == "expect":
        return post(body, target, b"Expect: 100-continue\r\n")
    middle = draw(st.integers(0, len(body)))
    chunks = b"".join(b"%x;e\r\n%b\r\n" % (len(p), p) for p in (body[:middle], body[middle:]) if p)
    return (
        b"PUT %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nT: r\r\n\r\n"
        % (target, chunks)
    )


def outcome(harness: Harness) -> tuple[list[tuple[bytes, bytes, bytes]], bytes]:
    seen = [(it.request.method, it.request.target, it.body_bytes) for it in harness.exchanges]
    wire = without_date(harness.transport.written).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    return seen, wire


@settings(max_examples=200, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=5), st.lists(st.integers(0, 600), max_size=12))
def test_any_split_gives_the_same_requests_and_answers(wires: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(wires)
    whole = Harness(on=answering)
    whole.feed(wire)
    assert len(whole.exchanges) == len(wires)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    split = Harness(ServerLimits(high_water_bytes=7, max_pipelined=2), on=answering)
    split.feed(*[wire[start:end] for start, end in pairwise(bounds)])
    assert outcome(split) == outcome(whole)


ACTIONS = ["answer", "pause", "resume", "start", "send", "finish", "abort", "stick", "drain", "eof"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(requests(), st.binary(max_size=20), st.sampled_from(ACTIONS), st.floats(0, 50)),
        max_size=15,
    )
)
def test_whatever_happens_every_exchange_ends_at_most_once(
    script: list[bytes | str | float],
) -> None:
    harness = Harness(ServerLimits(high_water_bytes=50))
    for step in script:
        if isinstance(step, bytes):
            if step and harness.transport.is_reading and not harness.transport.is_closing():
                harness.protocol.data_received(step)
        elif isinstance(step, float):
            harness.pass_time(step)
        else:
            act(harness, step)
        if len(step if isinstance(step, bytes) else b"") % 2:
            harness.loop.run()
    harness.loop.run()
    harness.connections.reset_all()
    harness.loop.run()
    assert all(it.is_over for it in harness.exchanges)
    assert len(harness.connections) == 0


def act(harness: Harness, action: str) -> None:
    if action == "stick":
        harness.transport.is_stuck = True
    elif action == "drain":
        harness.transport.drain()
    elif action == "eof":
        if not harness.transport.is_closing() and not harness.has_eof:
            harness.eof()
    elif harness.exchanges and not harness.last.is_over:
        act_on(harness.last, action)


def act_on(it: Exchange, action: str) -> None:
    is_started = it.writer.is_started  # type: ignore[attr-defined]  # of this writer
    if action == "pause":
        it.writer.pause_reading()
    elif action == "resume":
        it.writer.resume_reading()
    elif action == "abort":
        it.is_over = True
        it.writer.abort()
    elif action == "answer" and not is_started:
        it.answer(b"x" * 30)
    elif action == "start" and not is_started:
        it.writer.send_head(200, [], None)
    elif action == "send" and is_started:
        it.writer.send_data(b"x" * 30)
    elif action == "finish" and is_started:
        it.is_over = True
        it.writer.send_end()
