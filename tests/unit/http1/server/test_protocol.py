"""One connection as transcripts, and as properties over any bytes in any pieces."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http1.server.limits import EdgeLimits
from tests.unit.http1.server.fake_transport import Exchange, Table, answering

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


def test_a_request_and_its_answer_take_one_write() -> None:
    table = Table(on=answering)
    table.feed(post(b"hello"))
    assert table.last.events == ["body", "end"]
    assert without_date(table.transport.written) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nserver: invocation-gateway\r\n\r\n/p hello"
    )
    assert re.search(
        rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", table.transport.written
    )
    assert table.transport.writes == 1
    assert not table.transport.is_closing()


def test_an_answer_from_elsewhere_leaves_with_the_same_turn_in_one_write() -> None:
    table = Table()
    table.feed(GET)
    table.last.responder.send_head(200, [], None)
    table.last.responder.send_data(b"data: 1\n\n")
    table.last.responder.send_data(b"data: 2\n\n")
    assert table.transport.written == b""
    table.loop.run()
    assert table.transport.writes == 1
    assert table.transport.written.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n")
    table.last.responder.send_end()
    table.loop.run()
    assert table.transport.written.endswith(b"\r\n0\r\n\r\n")


def test_the_workers_own_date_and_server_stand_alone() -> None:
    table = Table()
    table.feed(GET)
    table.last.answer(headers=[(b"date", b"then"), (b"server", b"uvicorn")])
    table.loop.run()
    assert table.transport.written.count(b"date:") == 1
    assert table.transport.written.count(b"server:") == 1


def test_a_response_to_head_has_the_length_and_no_body() -> None:
    table = Table(on=answering)
    table.feed(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"content-length: 3\r\n" in table.transport.written
    assert table.transport.written.endswith(b"\r\n\r\n")


def test_a_body_of_unknown_length_to_http_1_0_ends_with_the_connection() -> None:
    table = Table()
    table.feed(b"GET /a HTTP/1.0\r\n\r\n")
    table.last.responder.send_head(200, [], None)
    table.last.responder.send_data(b"x")
    table.last.is_over = True
    table.last.responder.send_end()
    table.loop.run()
    assert b"connection: close\r\n" in table.transport.written
    assert table.transport.written.endswith(b"\r\n\r\nx")
    assert table.transport.is_closing()
    assert not table.transport.aborted


@pytest.mark.parametrize("sent", [b"", b"four"])
def test_a_response_shorter_than_announced_is_reset(sent: bytes) -> None:
    table = Table()
    table.feed(GET)
    table.last.responder.send_head(200, [], 5)
    table.last.responder.send_data(sent)
    table.last.is_over = True
    table.last.responder.send_end()
    assert table.transport.aborted
    assert table.transport.socket.resets
    table.loop.run()


def test_a_response_longer_than_announced_is_reset_and_its_maker_is_told() -> None:
    table = Table()
    table.feed(GET)
    table.last.responder.send_head(200, [], 5)
    table.last.responder.send_data(b"sixsix")
    assert table.last.events == ["end", "gone"]
    assert table.transport.aborted


def test_calls_after_the_end_do_not_touch_the_next_response() -> None:
    table = Table(on=answering)
    table.feed(GET)
    old = table.last.responder
    table.on = lambda event, exchange: None
    table.feed(GET)
    written = table.transport.written
    old.send_data(b"late")
    old.send_end()
    old.abort()
    table.loop.run()
    assert table.transport.written == written
    assert not table.transport.is_closing()


def test_a_dispatch_that_fails_is_answered_500_and_the_connection_closed() -> None:
    def fail(event: str, exchange: Exchange) -> None:
        if event == "dispatch":
            raise RuntimeError("a bug")

    table = Table(on=fail)
    table.feed(GET)
    assert table.status() == b"500"
    assert b"a bug" not in table.transport.written
    assert problem(table)["instance"] == "/a"
    assert table.transport.eof_written


# Refusals


def problem(table: Table) -> dict[str, Any]:
    """Return the document of the answer that came last, which is a whole one."""
    head, _, body = table.transport.written.rpartition(b"\r\n\r\n")
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
def test_what_is_no_request_is_answered_with_a_problem_and_closed(
    wire: bytes, status: bytes, path: str | None
) -> None:
    table = Table()
    table.feed(wire)
    assert table.exchanges == []
    assert table.status() == status
    assert b"\r\nconnection: close" in table.transport.written
    assert problem(table).get("instance") == path
    assert table.transport.eof_written
    table.feed(GET)
    assert table.exchanges == []


def test_a_body_that_breaks_its_coding_ends_the_exchange_before_the_refusal() -> None:
    table = Table()
    table.feed(CHUNKED_POST + b"5\r\nhello\r\n", b"zz\r\n")
    assert table.last.events == ["body", "first_part_end", "gone"]
    assert table.status() == b"400"
    assert problem(table)["instance"] == "/c"


@pytest.mark.parametrize(
    ("pieces", "path"),
    [([b"GET /b?", b"c HTTP/1.1\r\nHost: x y\r\n\r\n"], "/b"), ([b"GET ", b"/b\n"], None)],
)
def test_the_path_of_the_request_before_is_not_taken_for_that_of_a_refused_one(
    pieces: list[bytes], path: str | None
) -> None:
    table = Table(on=answering)
    table.feed(GET, *pieces)
    assert problem(table).get("instance") == path


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        (b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", "/p"),
        (b"GET /a HTTP/1.1\r\nHo", "/a"),
        (b"GET /a", None),
    ],
)
def test_what_comes_too_late_is_told_for_which_path(wire: bytes, path: str | None) -> None:
    table = Table(EdgeLimits(head_timeout_s=2, body_stall_s=2))
    table.feed(GET)
    table.last.answer()
    table.feed(wire)
    table.pass_time(6)
    document = problem(table)
    assert (document["status"], document.get("instance")) == (408, path)


def test_one_connection_too_many_is_told_by_an_id_too() -> None:
    assert problem(Table(EdgeLimits(max_connections=0)))["status"] == 503


def test_an_upgrade_is_served_as_plain_http() -> None:
    table = Table(on=answering)
    table.feed(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + GET)
    assert len(table.exchanges) == 2


# Bodies


def test_a_body_of_unknown_length_announces_what_had_arrived_once() -> None:
    table = Table()
    table.feed(CHUNKED_POST + b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n")
    assert table.last.events == ["body", "first_part_end", "body", "end"]
    assert table.last.request.body_bytes is None


def test_a_chunked_body_that_is_all_here_never_arrives_in_part() -> None:
    table = Table()
    table.feed(CHUNKED_POST + b"1\r\na\r\n0\r\n\r\n")
    assert table.last.events == ["body", "end"]


def test_a_large_body_comes_in_bounded_segments() -> None:
    table = Table()
    table.feed(post(b"x" * 200_000))
    assert table.last.events == ["body"] * 4 + ["end"]


def test_a_paused_body_is_read_to_the_high_water_mark_and_no_further() -> None:
    table = Table()
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n"
    table.feed(head + b"a" * 10)
    table.last.responder.pause_reading()
    table.feed(b"b" * 60_000)
    assert table.transport.is_reading
    table.protocol.data_received(b"c" * 10_000)
    assert not table.transport.is_reading
    assert table.last.body_bytes == b"a" * 10
    table.last.responder.resume_reading()
    assert table.last.body_bytes == b"a" * 10, "delivered inside the call"
    table.loop.run()
    assert table.last.body_bytes == b"a" * 10 + b"b" * 60_000 + b"c" * 10_000
    assert table.transport.is_reading


@pytest.mark.parametrize("length", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_100_continue_is_sent_when_the_body_is_wanted(length: bytes) -> None:
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n%b\r\n\r\n" % length
    at_once = Table()
    at_once.feed(head)
    assert at_once.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"

    later = Table(on=lambda event, it: event == "dispatch" and it.responder.pause_reading())
    later.feed(head)
    assert later.transport.written == b""
    later.last.responder.resume_reading()
    later.loop.run()
    assert later.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"

    never = Table(on=lambda event, it: event == "dispatch" and it.answer(status=401))
    never.feed(head)
    assert never.status() == b"401"
    assert b"connection: close" in never.transport.written


def test_an_early_answer_closes_and_lets_the_client_finish_for_a_while() -> None:
    table = Table(EdgeLimits(linger_s=5, linger_bytes=100))
    table.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc")
    table.last.answer(status=413)
    table.loop.run()
    assert b"connection: close\r\n" in table.transport.written
    assert table.transport.eof_written
    assert not table.transport.is_closing()
    table.feed(b"x" * 100)
    assert not table.transport.is_closing()
    table.feed(b"x")
    assert table.transport.is_closing()


def test_lingering_ends_in_time() -> None:
    table = Table(EdgeLimits(linger_s=5))
    table.feed(b"BAD\r\n\r\n")
    table.pass_time(4)
    assert not table.transport.is_closing()
    table.pass_time(3.1)
    assert table.transport.is_closing()


def test_an_answer_given_early_to_a_body_that_is_all_here_keeps_the_connection() -> None:
    table = Table(on=lambda event, it: event == "dispatch" and it.answer(status=401))
    table.feed(post(b"hello") + GET)
    assert len(table.exchanges) == 2
    assert b"connection" not in table.transport.written


# Pipelining


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    table = Table()
    table.feed(post(b"1", b"/1") + post(b"2", b"/2") + post(b"3", b"/3"))
    for number in (b"1", b"2", b"3"):
        assert [it.request.target for it in table.exchanges][-1] == b"/" + number
        assert table.last.body_bytes == number
        table.last.answer(number)
        table.loop.run()
    answers = re.findall(rb"\r\n\r\n(\d)", table.transport.written)
    assert answers == [b"1", b"2", b"3"]


def test_pipelined_requests_answered_at_once_take_one_write() -> None:
    table = Table(on=answering)
    table.feed(post(b"x") * 32)
    assert len(table.exchanges) == 32
    assert table.transport.writes == 1


def test_one_connection_cannot_have_the_loop_for_itself() -> None:
    table = Table(EdgeLimits(max_pipelined=3), on=answering)
    table.protocol.data_received(GET * 7)
    assert len(table.exchanges) == 3
    table.loop.run()
    assert len(table.exchanges) == 7


def test_requests_sent_ahead_are_held_up_to_the_high_water_mark() -> None:
    table = Table()
    table.protocol.data_received(GET + post(b"x" * 70_000))
    assert not table.transport.is_reading
    table.last.answer()
    table.loop.run()
    assert table.transport.is_reading
    assert len(table.exchanges) == 2
    assert table.last.events[-1] == "end"


def test_no_further_request_is_served_while_the_client_reads_nothing() -> None:
    table = Table(on=lambda event, it: event == "end" and it.answer(b"x" * 70_000))
    table.transport.is_stuck = True
    table.feed(GET + GET)
    assert len(table.exchanges) == 1
    table.transport.drain()
    table.loop.run()
    assert len(table.exchanges) == 2


# Congestion


def test_a_client_that_reads_slowly_congests_and_relieves_the_receiver() -> None:
    table = Table()
    table.transport.is_stuck = True
    table.feed(GET)
    table.last.responder.send_head(200, [], None)
    table.last.responder.send_data(b"x" * 70_000)
    assert table.last.events == ["end", "pause_writing"], "told before the call returned"
    assert table.last.responder.is_writing_paused()
    table.transport.drain()
    assert table.last.events[-1] == "resume_writing"
    assert not table.last.responder.is_writing_paused()


# Leaving


def test_a_client_that_leaves_is_gone_at_once() -> None:
    table = Table()
    table.feed(GET)
    table.protocol.connection_lost(ConnectionResetError())
    assert table.last.events == ["end", "gone"]
    assert len(table.connections) == 0


def test_a_half_closed_client_gets_its_answers_and_then_the_end() -> None:
    table = Table()
    table.feed(GET + GET)
    table.eof()
    assert table.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n", "is it still there?"
    table.last.answer()
    table.loop.run()
    table.last.answer()
    table.loop.run()
    assert table.transport.written.count(b"HTTP/1.1 200 OK") == 2
    assert table.transport.is_closing()


def test_a_client_that_closed_is_told_from_one_that_half_closed_by_its_reset() -> None:
    table = Table()
    table.feed(GET)
    table.transport.socket.error = 32
    table.eof()
    assert table.last.events == ["end", "gone"]
    assert table.transport.aborted


def test_a_half_closed_client_that_resets_later_is_noticed_at_the_next_check() -> None:
    table = Table()
    table.feed(GET)
    table.eof()
    table.transport.socket.error = 32
    table.pass_time(1)
    assert table.last.events == ["end", "gone"]


def test_a_peer_behind_unread_bytes_is_asked_once_whether_it_is_there() -> None:
    table = Table()
    table.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n")
    table.last.responder.pause_reading()
    table.protocol.data_received(b"x" * 100_000)
    table.transport.socket.tcp_state = 8
    table.pass_time(1)
    table.pass_time(1)
    assert table.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    table.transport.socket.error = 104
    table.pass_time(1)
    assert table.last.events == ["gone"]


def test_an_http_1_0_client_that_sends_eof_has_left() -> None:
    table = Table()
    table.feed(b"GET / HTTP/1.0\r\n\r\n")
    table.eof()
    assert table.last.events == ["end", "gone"]


@pytest.mark.parametrize(
    "wire",
    [
        b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcd",
        CHUNKED_POST + b"5\r\nabcd",
        CHUNKED_POST + b"4\r\nabcd\r\n",
    ],
)
@pytest.mark.parametrize("is_paused", [False, True])
def test_a_client_that_leaves_before_its_bodys_end_is_gone(wire: bytes, is_paused: bool) -> None:
    table = Table()
    table.feed(wire)
    if is_paused:
        table.last.responder.pause_reading()
    table.eof()
    assert table.last.events[-1] == "gone"
    assert table.status() == b"400"
    assert table.transport.is_closing()


def test_a_paused_client_that_resets_is_noticed_at_the_next_check() -> None:
    table = Table()
    table.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n")
    table.last.responder.pause_reading()
    table.protocol.data_received(b"x" * 100_000)
    table.transport.socket.error = 104
    table.pass_time(1)
    assert table.last.events == ["gone"]


def test_a_body_that_ends_in_held_bytes_survives_eof() -> None:
    table = Table()
    table.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    table.last.responder.pause_reading()
    table.feed(b"hello")
    table.eof()
    table.last.responder.resume_reading()
    table.loop.run()
    assert table.last.events == ["body", "end"]


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
    table = Table()
    table.feed(*pieces[:-1])
    assert table.transport.written == b""
    table.feed(pieces[-1])
    assert table.status() == b"400"
    assert table.transport.eof_written


# Time

LIMITS = EdgeLimits(head_timeout_s=10, body_stall_s=20, write_stall_s=30, idle_timeout_s=40)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    table = Table(LIMITS, on=answering)
    table.feed(GET)
    table.transport.written = b""
    table.pass_time(39.9)
    assert not table.transport.is_closing()
    table.pass_time(2.1)
    assert table.transport.is_closing()
    assert table.transport.written == b""


def test_a_head_has_to_come_in_time_however_it_trickles() -> None:
    table = Table(LIMITS)
    for _ in range(9):
        table.feed(b"G")
        table.pass_time(1)
    assert table.transport.written == b""
    table.pass_time(3.1)
    assert table.status() == b"408"


def test_a_body_may_take_its_time_but_not_stall() -> None:
    table = Table(LIMITS)
    table.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    for _ in range(3):
        table.pass_time(19)
        table.feed(b"x")
    assert table.last.events == ["body"] * 3
    table.pass_time(22.1)
    assert table.last.events[-1] == "gone"
    assert table.status() == b"408"


def test_nobody_is_blamed_for_a_body_that_is_not_wanted() -> None:
    table = Table(LIMITS)
    table.feed(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    table.last.responder.pause_reading()
    table.pass_time(1000)
    assert table.last.events == []
    table.last.responder.resume_reading()
    table.pass_time(22.1)
    assert table.last.events == ["gone"]


def test_waiting_for_the_answer_has_no_limit_here() -> None:
    table = Table(LIMITS)
    table.feed(GET)
    table.pass_time(4000)
    assert table.last.events == ["end"]


def test_a_client_that_takes_nothing_is_reset_and_one_that_takes_little_is_not() -> None:
    table = Table(LIMITS)
    table.transport.is_stuck = True
    table.feed(GET)
    table.last.responder.send_head(200, [], None)
    table.last.responder.send_data(b"x" * 1000)
    table.loop.run()
    for _ in range(10):
        table.pass_time(29)
        table.transport.buffered -= 1
    assert not table.transport.aborted
    table.pass_time(32.1)
    assert table.transport.aborted
    assert table.last.events[-1] == "gone"


def test_a_client_that_takes_nothing_from_the_first_byte_on_is_reset() -> None:
    table = Table(LIMITS)
    table.pass_time(35)
    table.transport.is_stuck = True
    table.feed(GET)
    table.last.responder.send_head(200, [], None)
    table.loop.run()
    table.pass_time(29)
    assert not table.transport.aborted
    table.pass_time(3.1)
    assert table.transport.aborted


# Draining


def test_draining_closes_idle_connections_and_busy_ones_after_their_answer() -> None:
    idle = Table()
    idle.connections.draining = True
    idle.protocol.drain()
    assert idle.transport.is_closing()

    busy = Table()
    busy.feed(GET)
    busy.connections.draining = True
    busy.protocol.drain()
    assert not busy.transport.is_closing()
    busy.last.answer()
    busy.loop.run()
    assert b"connection: close\r\n" in busy.transport.written
    assert busy.transport.is_closing()


# Any bytes, any pieces


def test_a_head_cut_anywhere_is_found() -> None:
    for at in range(1, len(GET)):
        table = Table(on=answering)
        table.feed(GET[:at], GET[at:])
        assert len(table.exchanges) == 1, at


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


def outcome(table: Table) -> tuple[list[tuple[bytes, bytes, bytes]], bytes]:
    seen = [(it.request.method, it.request.target, it.body_bytes) for it in table.exchanges]
    wire = without_date(table.transport.written).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    return seen, wire


@settings(max_examples=200, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=5), st.lists(st.integers(0, 600), max_size=12))
def test_any_split_gives_the_same_requests_and_answers(wires: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(wires)
    whole = Table(on=answering)
    whole.feed(wire)
    assert len(whole.exchanges) == len(wires)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    split = Table(EdgeLimits(high_water_bytes=7, max_pipelined=2), on=answering)
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
    table = Table(EdgeLimits(high_water_bytes=50))
    for step in script:
        if isinstance(step, bytes):
            if step and table.transport.is_reading and not table.transport.is_closing():
                table.protocol.data_received(step)
        elif isinstance(step, float):
            table.pass_time(step)
        else:
            act(table, step)
        if len(step if isinstance(step, bytes) else b"") % 2:
            table.loop.run()
    table.loop.run()
    table.connections.reset_all()
    table.loop.run()
    assert all(it.is_over for it in table.exchanges)
    assert len(table.connections) == 0


def act(table: Table, action: str) -> None:
    if action == "stick":
        table.transport.is_stuck = True
    elif action == "drain":
        table.transport.drain()
    elif action == "eof":
        if not table.transport.is_closing() and not table.has_sent_eof:
            table.eof()
    elif table.exchanges and not table.last.is_over:
        act_on(table.last, action)


def act_on(it: Exchange, action: str) -> None:
    is_started = it.responder.is_started  # type: ignore[attr-defined]  # of this responder
    if action == "pause":
        it.responder.pause_reading()
    elif action == "resume":
        it.responder.resume_reading()
    elif action == "abort":
        it.is_over = True
        it.responder.abort()
    elif action == "answer" and not is_started:
        it.answer(b"x" * 30)
    elif action == "start" and not is_started:
        it.responder.send_head(200, [], None)
    elif action == "send" and is_started:
        it.responder.send_data(b"x" * 30)
    elif action == "finish" and is_started:
        it.is_over = True
        it.responder.send_end()
