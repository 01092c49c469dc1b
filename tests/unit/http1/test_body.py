"""Chunked bodies, in any pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.body import MAX_STEPS, BodyError, ChunkedBody
from wire.http1 import chunk_data


def decode(*pieces: bytes, enough_bytes: int = 5) -> tuple[bytes, bool, bytes]:
    body = ChunkedBody()
    decoded = b""
    rest = b""
    for piece in pieces:
        at = 0
        while at < len(piece) and not body.is_complete:
            taken, at = body.take(piece, at, enough_bytes)
            assert len(taken) <= enough_bytes
            decoded += taken
        rest += piece[at:]
    return decoded, body.is_complete, rest


STREAM = (
    b'5\r\nhello\r\n00A;x=y;z="q"\r\n 0123\r\n\r\n8\r\n1 \t ;e\r\n!\r\n'
    b"0\r\nX-Sum: 1\r\nY:\r\n\r\nGET /"
)
BODY = b"hello 0123\r\n\r\n8!"


@given(st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_any_pieces_give_the_same_body_and_the_same_rest(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(bounds)]
    assert decode(*pieces) == (BODY, True, b"GET /")


def test_one_call_decodes_a_bounded_number_of_chunks() -> None:
    chunks = b"1\r\nz\r\n" * (3 * MAX_STEPS)
    body = ChunkedBody()
    taken, at = body.take(chunks, 0, 65_536)
    assert (len(taken), at) == (MAX_STEPS, MAX_STEPS * 6)


@pytest.mark.parametrize(
    "stream",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1\na\r\n",
        b"1\r\na\n",
        b"1\r\nab\r\n",
        b"1\r\na\r\r\n",
        b"1_0\r\n",
        b"1 \r\na\r\n",
        b"1 x\r\na\r\n",
        b"1;a\x00\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"1234567890abcdef\r\n",
        b"1;" + b"x" * 1100,
        b"1;" + b"x" * 1000 + b"\r\na\r\n" + (b"1;" + b"x" * 1000 + b"\r\na\r\n") * 16,
        b"0\r\nX : y\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 3000,
    ],
    ids=lambda stream: repr(stream)[2:30],
)
def test_what_other_parsers_might_read_differently_is_refused(stream: bytes) -> None:
    with pytest.raises(BodyError):
        decode(stream)
    with pytest.raises(BodyError):
        decode(*[stream[at : at + 1] for at in range(len(stream))])


@given(st.binary(max_size=80))
def test_no_bytes_break_it(stream: bytes) -> None:
    try:
        decoded, _, _ = decode(stream)
    except BodyError:
        return
    assert len(decoded) <= len(stream)


def framed(size_line: bytes, data: bytes) -> bytes:
    return b"%b\r\n%b\r\n" % (size_line, data)


@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 17, 254, 255, 256, 257, 4000, 4089])
def test_a_read_that_is_one_chunk_is_known_by_its_length(size: int) -> None:
    body = ChunkedBody()
    for size_line in (b"%x" % size, b"%X" % size):
        assert body.whole(framed(size_line, b"x" * size)) == size
        assert body.whole(framed(size_line, b"x" * (size + 1))) == 0
        assert body.whole(framed(size_line, b"x" * (size - 1))) == 0
        assert body.whole(framed(size_line, b"x" * size)[:-1]) == 0
        assert body.whole(framed(size_line, b"x" * size)[:-2] + b"xx") == 0


@pytest.mark.parametrize(
    "size_line", [b"0aB", b"aB", b"0xab", b"+ab", b" ab", b"ab ", b"a_b", b"ab;x=y", b"-ab", b""]
)
def test_a_chunk_in_another_form_is_not_passed_on_as_it_is(size_line: bytes) -> None:
    for length in (0x0A, 0xAB):
        assert ChunkedBody().whole(framed(size_line, b"x" * length)) == 0


PIECES = [b"5\r\nhello\r\n", b"c\r\nhello, world\r\n", b"C\r\nhello, world\r\n"]
PIECES += [b"5;x\r\nhello\r\n", b"5\r\nhel", b"lo\r\n", b"5\r", b"\n", b"3\r\n\r\n\n\r\n"]
PIECES += [b"0\r\n\r\n", b"0\r\n", b"\r\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_what_is_passed_on_as_it_is_would_have_been_decoded_to_the_same(
    pieces: list[bytes],
) -> None:
    body, other = ChunkedBody(), ChunkedBody()
    for piece in pieces:
        size = body.whole(piece)
        try:
            taken, at = other.take(piece, 0, 65_536)
        except BodyError:
            assert not size
            return
        if size:
            assert (taken, at) == (chunk_data(piece, size), len(piece))
        else:
            body.take(piece, 0, 65_536)
        assert body.is_complete == other.is_complete
        if body.is_complete:
            assert body.whole(piece) == 0
            return
