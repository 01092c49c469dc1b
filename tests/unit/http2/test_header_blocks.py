"""Header blocks against another implementation, and what is no header block."""

import pytest
from hpack.hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from http2.header_blocks import (
    NO_TABLE,
    TABLE_BYTES,
    BlockDecoder,
    BlockError,
    encode_headers,
    encode_status,
)

_NAMES = st.one_of(
    st.sampled_from([b":path", b":method", b"cookie", b"x-a", b"x-b", b"content-length"]),
    st.binary(min_size=1, max_size=40),
)
_HEADERS = st.lists(st.tuples(_NAMES, st.binary(max_size=300)), max_size=12)


@given(st.lists(st.tuples(_HEADERS, st.booleans(), st.sampled_from([0, 100, 4096])), max_size=8))
def test_blocks_of_a_connection_are_decoded_as_they_were_encoded(
    blocks: list[tuple[list[tuple[bytes, bytes]], bool, int]],
) -> None:
    encoder, decoder = Encoder(), BlockDecoder()
    for headers, huffman, size in blocks:
        encoder.header_table_size = size
        block = encoder.encode(headers, huffman=huffman)
        generation = decoder.generation
        assert decoder.decode(block, 1 << 20) == headers
        if decoder.generation == generation:
            # The same block means the same again.
            assert decoder.decode(block, 1 << 20) == headers


@given(_HEADERS, st.sampled_from([200, 204, 404, 418, 599, 103]))
def test_what_is_encoded_is_decoded_by_others_and_enters_no_table(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    decoder = Decoder()
    block = NO_TABLE + encode_status(status) + encode_headers(headers)
    expected = [(b":status", b"%d" % status), *headers]
    assert [(name, value) for name, value in decoder.decode(block, raw=True)] == expected
    assert len(decoder.header_table.dynamic_entries) == 0


def test_headers_that_are_too_large_leave_the_table_right() -> None:
    encoder, decoder = Encoder(), BlockDecoder()
    large = [(b"x-large", b"y" * 500), (b"x-small", b"z")]
    assert decoder.decode(encoder.encode(large), 400) is None
    assert decoder.decode(encoder.encode(large), 10_000) == large


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",
        b"\xbe",
        b"\x40",
        b"\x40\x05ab",
        b"\x00\x01x\x05ab",
        b"\xff\x80\x80\x80\x80\x80\x80\x00",
        b"\x7f\xff\xff\xff\xff\x7f",
        b"\x3f\xe2\x1f",
        b"\x82\x20",
        b"\x00\x81\xff\x01y",
        b"\x00\x84\xff\xff\xff\xff\x01y",
    ],
)
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(BlockError):
        BlockDecoder().decode(block, 10_000)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_do_anything_else_than_decode_or_fail(blocks: list[bytes]) -> None:
    decoder = BlockDecoder()
    try:
        for block in blocks:
            headers = decoder.decode(block, 1000)
            assert headers is None or sum(len(n) + len(v) + 32 for n, v in headers) <= 1000
    except BlockError:
        pass


def test_an_entry_larger_than_the_table_empties_it() -> None:
    encoder, decoder = Encoder(), BlockDecoder()
    assert decoder.decode(encoder.encode([(b"x", b"y")]), 10_000) == [(b"x", b"y")]
    large = [(b"x", b"z" * TABLE_BYTES)]
    assert decoder.decode(encoder.encode(large), 10_000) == large
    with pytest.raises(BlockError):
        decoder.decode(b"\xbe", 10_000)
