from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueing.nats.protocol import (
    MAX_LINE_BYTES,
    Parser,
    ProtocolError,
    description_of,
    encode_publish,
    encode_publish_with_headers,
    header_value,
    status_of,
)

STREAM = (
    b'INFO {"server_id":"A"}\r\n'
    b"PING\r\n"
    b"MSG a.b 1 5\r\nhello\r\n"
    b"MSG a.b 1 reply.to 0\r\n\r\n"
    b"HMSG a.c 1 12 17\r\nNATS/1.0\r\n\r\nhe\r\nx\r\n"
    b"+OK\r\n"
    b"HMSG a.c 1 r 21 21\r\nNATS/1.0 404 None\r\n\r\n\r\n"
    b"-ERR 'Stale Connection'\r\n"
    b"MSG other 9 3\r\n\r\n!\r\n"
    b"PONG\r\n"
)
TOLD = [
    ("info", b'{"server_id":"A"}'),
    ("ping",),
    ("message", b"a.b", b"", b"", b"hello"),
    ("message", b"a.b", b"reply.to", b"", b""),
    ("message", b"a.c", b"", b"NATS/1.0\r\n\r\n", b"he\r\nx"),
    ("message", b"a.c", b"r", b"NATS/1.0 404 None\r\n\r\n", b""),
    ("error", "Stale Connection"),
    ("pong",),
]


class Recorder:
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.parser = Parser(self, {b"1": self.message})

    def message(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self.told.append(("message", subject, reply, headers, payload))

    def on_info(self, document: bytes) -> None:
        self.told.append(("info", document))

    def on_ping(self) -> None:
        self.told.append(("ping",))

    def on_pong(self) -> None:
        self.told.append(("pong",))

    def on_error(self, text: str) -> None:
        self.told.append(("error", text))

    def on_handler_failed(self, error: Exception) -> None:
        self.told.append(("failed", str(error)))


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_split_gives_the_same(cuts: list[int]) -> None:
    recorder = Recorder()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        recorder.parser.feed(STREAM[start:end])
    assert recorder.told == TOLD


def test_a_byte_at_a_time_gives_the_same() -> None:
    recorder = Recorder()
    for byte in STREAM:
        recorder.parser.feed(bytes([byte]))
    assert recorder.told == TOLD


@given(st.binary(max_size=200))
def test_nothing_but_a_protocol_error_comes_of_noise(noise: bytes) -> None:
    try:
        Recorder().parser.feed(noise + b"\r\n")
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 1\r\nx\r\n",
        b"MSG a 1 r x 5\r\nhello\r\n",
        b"MSG a 1 -5\r\nhello\r\n",
        b"MSG a 1 99999999999\r\n",
        b"MSG a 1 " + b"9" * 5000 + b"\r\n",
        b"HMSG a 1 9 5\r\nhello\r\n",
        b"MESSAGE a 1 5\r\nhello\r\n",
        b"WHAT\r\n",
        b"x" * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_is_no_nats_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Recorder().parser.feed(line)


def test_a_failing_handler_is_reported_and_the_next_message_delivered() -> None:
    recorder = Recorder()

    def fails(*_: bytes) -> None:
        raise RuntimeError("bug")

    parser = Parser(recorder, {b"1": recorder.message, b"2": fails})
    parser.feed(b"MSG a 2 0\r\n\r\nMSG b 1 0\r\n\r\n")
    assert recorder.told == [("failed", "bug"), ("message", b"b", b"", b"", b"")]


def test_frames_are_what_the_protocol_says() -> None:
    assert encode_publish(b"a", b"", b"xy") == b"PUB a 2\r\nxy\r\n"
    assert encode_publish(b"a", b"r", b"") == b"PUB a r 0\r\n\r\n"
    headers = b"NATS/1.0\r\nK: v\r\n\r\n"
    assert encode_publish_with_headers(b"a", b"r", headers, b"xy") == (
        b"HPUB a r 18 20\r\nNATS/1.0\r\nK: v\r\n\r\nxy\r\n"
    )


def test_statuses_and_headers_are_read() -> None:
    timeout = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 7\r\n\r\n"
    assert status_of(timeout) == 408
    assert description_of(timeout) == "Request Timeout"
    assert header_value(timeout, b"Nats-Pending-Messages") == b"7"
    assert header_value(timeout, b"Nats-Pending") is None
    assert status_of(b"NATS/1.0\r\nA: 408\r\n\r\n") == 0
    assert status_of(b"") == 0
    assert description_of(b"NATS/1.0 503\r\n\r\n") == ""
