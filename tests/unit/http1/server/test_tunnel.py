"""A connection that has changed to a WebSocket, with a recording transport."""

import pytest

from http1.server.limits import ServerLimits
from tests.support.edge_harness import Exchange, Harness

ASK = (
    b"GET /ws HTTP/1.1\r\nHost: f.example\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: WebSocket\r\n%b\r\n"
)
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"x-own: 1\r\n\r\n"
)


def opened(limits: ServerLimits | None = None) -> Harness:
    harness = Harness(limits)
    harness.feed(ASK % b"")
    assert harness.last.request.protocol == b"websocket"
    harness.last.writer.open_tunnel([(b"x-own", b"1")])
    harness.loop.run()
    assert harness.transport.written == AGREED
    harness.transport.written = b""
    return harness


@pytest.mark.parametrize(
    ("head", "protocol"),
    [
        (ASK % b"", b"websocket"),
        (ASK.replace(b"GET", b"POST") % b"Content-Length: 0\r\n", b""),
        (ASK.replace(b"HTTP/1.1", b"HTTP/1.0") % b"", b""),
        (ASK.replace(b", Upgrade", b"") % b"", b""),
        (ASK.replace(b"WebSocket", b"h2c") % b"", b""),
    ],
)
def test_only_a_get_of_http_1_1_with_both_headers_asks(head: bytes, protocol: bytes) -> None:
    harness = Harness()
    # A head that repeats asks each time.
    for _ in range(4):
        harness.feed(head)
        assert harness.last.request.protocol == protocol
        harness.last.answer()
        harness.loop.run()
        if harness.transport.is_closing():
            return


def test_bytes_pass_as_they_are_in_both_directions() -> None:
    harness = opened()
    exchange = harness.last
    data = b"GET / HTTP/1.1\r\n\r\n" + bytes(200_000)
    harness.feed(data, b"more")
    assert exchange.body_bytes == data + b"more"
    exchange.writer.send_data(b"\x81\x01x")
    exchange.writer.send_chunk(b"2\r\nyz\r\n", 2)
    harness.loop.run()
    assert harness.transport.written == b"\x81\x01xyz"
    assert len(harness.exchanges) == 1


def test_what_came_too_early_is_delivered_first_and_as_far_as_the_reader_wants() -> None:
    harness = Harness()
    harness.feed(ASK % b"" + b"early ")
    exchange = harness.last
    exchange.writer.pause_reading()
    exchange.writer.open_tunnel([])
    harness.feed(b"later ")
    assert exchange.body_bytes == b""
    harness.protocol.data_received(bytes(100_000))
    assert not harness.transport.is_reading
    exchange.writer.resume_reading()
    harness.loop.run()
    assert exchange.body_bytes == b"early later " + bytes(100_000)
    assert harness.transport.is_reading


def test_the_clients_end_is_reported_after_all_that_came_before() -> None:
    harness = opened()
    exchange = harness.last
    exchange.writer.pause_reading()
    harness.feed(b"last words")
    harness.eof()
    assert exchange.events == ["end"]
    exchange.writer.resume_reading()
    harness.loop.run()
    assert exchange.events == ["end", "data", "end"]
    # Our direction is open still.
    exchange.writer.send_data(b"bye")
    harness.loop.run()
    assert harness.transport.written == b"bye"
    assert not harness.transport.is_closing()
    exchange.writer.send_end()
    harness.loop.run()
    assert harness.transport.is_closing()
    assert not harness.transport.aborted


@pytest.mark.parametrize("end", ["send_end", "abort"])
def test_our_end_comes_after_what_was_sent_and_is_no_reset(end: str) -> None:
    harness = opened()
    exchange = harness.last
    exchange.writer.send_data(b"bye")
    getattr(exchange.writer, end)()
    exchange.is_over = True
    harness.loop.run()
    assert harness.transport.written == b"bye"
    assert harness.transport.eof_written
    assert not harness.transport.is_closing()
    harness.feed(b"what is dropped")
    harness.eof()
    assert harness.transport.is_closing()
    assert not harness.transport.aborted


def test_with_tls_there_is_no_end_of_one_side() -> None:
    harness = opened()
    harness.transport.can_write_eof = lambda: False  # type: ignore[method-assign]
    harness.last.writer.send_end()
    harness.last.is_over = True
    harness.loop.run()
    assert harness.transport.is_closing()
    assert not harness.transport.aborted


def test_silence_ends_nothing() -> None:
    harness = opened(ServerLimits(body_stall_s=1, idle_timeout_s=1, head_timeout_s=1))
    harness.pass_time(100)
    harness.feed(b"x")
    harness.pass_time(100)
    assert harness.last.events == ["end", "data"]
    assert not harness.transport.is_closing()


def test_a_client_that_has_left_is_not_waited_for_forever_while_nobody_reads_it() -> None:
    harness = opened(ServerLimits(write_stall_s=10))
    exchange = harness.last
    exchange.writer.pause_reading()
    harness.protocol.data_received(bytes(100_000))
    assert not harness.transport.is_reading
    harness.transport.socket.tcp_state = 8  # CLOSE_WAIT: its FIN has come
    harness.pass_time(8)
    assert exchange.events == ["end"]
    # Each bit of progress gives it more time.
    exchange.writer.resume_reading()
    harness.loop.run()
    exchange.writer.pause_reading()
    harness.protocol.data_received(bytes(100_000))
    harness.pass_time(8)
    assert exchange.events[-1] == "data"
    harness.pass_time(14)
    assert exchange.events[-1] == "broken"
    assert harness.transport.aborted


def test_a_slow_client_pauses_and_one_that_is_gone_breaks() -> None:
    harness = opened()
    exchange = harness.last
    harness.transport.is_stuck = True
    exchange.writer.send_data(bytes(100_000))
    harness.loop.run()
    assert exchange.events == ["end", "pause_writing"]
    harness.transport.drain()
    assert exchange.events[-1] == "resume_writing"
    harness.protocol.connection_lost(ConnectionResetError())
    assert exchange.events[-1] == "broken"


def test_an_upgrade_that_is_refused_leaves_the_connection_as_it_is() -> None:
    def refuse(event: str, exchange: Exchange) -> None:
        if event == "end":
            exchange.answer(b"no", 403)

    harness = Harness(on=refuse)
    harness.feed(ASK % b"", ASK % b"")
    assert harness.transport.written.count(b"HTTP/1.1 403 Forbidden") == 2
    assert not harness.transport.is_closing()
