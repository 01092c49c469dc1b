import pytest

from invocation_client.goaway import FrameTooLong, GoawayFilter, GoawayFrame

PING = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)
GOAWAY = b"\0\0\x0a\x07\0\0\0\0\0" + b"\x80\0\0\x05" + b"\0\0\0\x0b" + b"hi"
EMPTY = b"\0\0\0\x04\0\0\0\0\0"


def test_goaway_is_taken_out_from_between_other_frames() -> None:
    parts = list(GoawayFilter().feed(PING + EMPTY + GOAWAY + PING))
    assert parts == [PING + EMPTY, GoawayFrame(5, 11), PING]


def test_frames_may_come_byte_by_byte() -> None:
    frames = GoawayFilter()
    parts = [part for byte in PING + GOAWAY + EMPTY for part in frames.feed(bytes([byte]))]
    assert parts == [PING, GoawayFrame(5, 11), EMPTY]


def test_a_frame_above_the_limit_is_refused_at_its_head() -> None:
    with pytest.raises(FrameTooLong):
        list(GoawayFilter().feed(b"HTTP/1.1 "))
