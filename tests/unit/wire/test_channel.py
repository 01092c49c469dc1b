"""Frames of a channel: any cut of the bytes, unknown kinds, bounds, and what each carries."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.channel import (
    FAULTS,
    HEAD_BYTES,
    MAX_FRAME_BYTES,
    REQUEST_ID_BYTES,
    CallFrame,
    FrameError,
    FrameReader,
    Kind,
    Reason,
    channel_token,
    decode_count,
    decode_reason,
    decode_request_id,
    decode_response,
    decode_running,
    encode_call,
    encode_count,
    encode_frame,
    encode_queued_response,
    encode_response,
    encode_running,
)

REQUEST_ID = b"33333333-3333-4333-8333-333333333333"
_NUMBERS = st.integers(0, 2**64 - 1)
_FRAMES = st.lists(st.tuples(st.integers(0, 255), _NUMBERS, st.binary(max_size=40)), max_size=12)


def read(*parts: bytes) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []
    reader = FrameReader()
    for part in parts:
        reader.feed(part, lambda *frame: found.append(frame))
    return found


def payload_of(frame: bytes) -> bytes:
    ((_, _, payload),) = read(frame)
    return payload


@given(_FRAMES, st.lists(st.integers(0, 600), max_size=30))
def test_frames_are_the_same_however_their_bytes_are_cut(
    frames: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(
        len(payload).to_bytes(4) + bytes((kind,)) + number.to_bytes(8) + payload
        for kind, number, payload in frames
    )
    at = [0, *sorted(cuts), len(data)]
    assert read(*[data[a:b] for a, b in pairwise(at)]) == frames


def test_a_frame_may_be_as_large_as_the_limit_and_no_larger() -> None:
    frame = encode_frame(Kind.PING, 1, bytes(MAX_FRAME_BYTES))
    assert len(payload_of(frame)) == MAX_FRAME_BYTES
    head = (MAX_FRAME_BYTES + 1).to_bytes(4) + frame[4:HEAD_BYTES]
    with pytest.raises(FrameError):
        read(head)
    with pytest.raises(FrameError):
        read(head[:5], head[5:])


def test_frames_before_one_that_is_too_large_are_taken() -> None:
    found: list[int] = []
    data = encode_frame(Kind.PING, 1) + b"\xff" * HEAD_BYTES
    with pytest.raises(FrameError):
        FrameReader().feed(data, lambda kind, number, payload: found.append(number))
    assert found == [1]


@given(_NUMBERS, _NUMBERS, st.binary(max_size=99), st.binary(max_size=99), st.booleans(), _NUMBERS)
def test_a_call_is_read_as_it_was_written(
    number: int, at_ns: int, head: bytes, body: bytes, has_rest: bool, confirmed: int
) -> None:
    frame = encode_call(
        number, REQUEST_ID, at_ns, head, body, has_rest=has_rest, confirmed=confirmed
    )
    assert frame is not None
    ((kind, read_number, payload),) = read(frame)
    call = CallFrame(payload)
    assert (kind, read_number) == (Kind.CALL, number)
    assert (call.request_id.encode(), call.requested_at_ns) == (REQUEST_ID, at_ns)
    assert (call.head, call.body) == (head, body)
    assert (call.has_rest, call.confirmed) == (has_rest, confirmed)


def test_a_call_that_would_not_fit_into_a_frame_is_not_encoded() -> None:
    def encode(body_bytes: int) -> bytes | None:
        return encode_call(
            1, REQUEST_ID, 0, b"head", bytes(body_bytes), has_rest=False, confirmed=0
        )

    largest = MAX_FRAME_BYTES
    while encode(largest) is None:
        largest -= 1
    frame = encode(largest)
    assert frame is not None
    assert len(payload_of(frame)) == MAX_FRAME_BYTES


@given(st.binary(max_size=80))
def test_any_payload_is_read_or_refused(payload: bytes) -> None:
    for decode in (
        CallFrame,
        decode_response,
        decode_request_id,
        decode_count,
        decode_reason,
        decode_running,
    ):
        try:
            decode(payload)
        except FrameError:
            pass


@pytest.mark.parametrize("trailers", [b"", b"grpc-status: 0\r\n"])
@pytest.mark.parametrize("fault", FAULTS)
def test_responses_are_read_as_they_were_written(fault: bytes, trailers: bytes) -> None:
    response = b"HTTP/1.1 200 OK\r\n\r\nbody"
    own = payload_of(encode_response(7, fault, 2_500_000, response, trailers))
    assert decode_response(own) == (fault, 2.5, response, trailers)
    queued = payload_of(encode_queued_response(REQUEST_ID, fault, 1 << 40, response, trailers))
    assert decode_request_id(queued).encode() == REQUEST_ID
    found = decode_response(queued[REQUEST_ID_BYTES:])
    assert (found.fault, found.response, found.trailers) == (fault, response, trailers)
    assert found.worker_s == pytest.approx((2**32 - 1) / 1e6)
    if trailers:
        for size in range(5, 7 + len(trailers)):
            with pytest.raises(FrameError):
                decode_response(own[:size])


def test_the_other_frames_are_read_as_they_were_written() -> None:
    assert read(encode_count(Kind.SLOTS, 9)) == [(Kind.SLOTS, 0, (9).to_bytes(8))]
    assert read(encode_count(Kind.CONFIRM, 9, 5))[0][:2] == (Kind.CONFIRM, 5)
    assert decode_count(payload_of(encode_count(Kind.CONFIRM, 2**64 - 1))) == 2**64 - 1
    ((kind, last, payload),) = read(encode_running(8, [3, 2**63, 1]))
    assert (kind, last, decode_running(payload)) == (Kind.RUNNING, 8, {3, 2**63, 1})
    for reason in Reason:
        assert decode_reason(payload_of(encode_frame(Kind.BUSY, 1, bytes((reason,))))) is reason


def test_a_token_opens_a_channel_for_its_request_and_version_only() -> None:
    tokens = {
        channel_token(secret, request, version)
        for secret in (b"a", b"b")
        for request in ("r1", "r2")
        for version in ("v1", "v2")
    }
    assert len(tokens) == 8
