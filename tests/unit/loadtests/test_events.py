import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.events import EventReader, StreamError, encode_event

SENT = b"".join(encode_event(number) for number in range(5))


@given(st.lists(st.integers(1, len(SENT)), max_size=20))
def test_any_split_of_the_stream_gives_the_same_events(cuts: list[int]) -> None:
    reader = EventReader()
    edges = [0, *sorted(cuts), len(SENT)]
    for first, last in itertools.pairwise(edges):
        reader.feed(SENT[first:last], 10**19)
    reader.finish(5)
    assert len(reader.delays_ns) == 5


def test_the_delay_is_receipt_minus_sending() -> None:
    reader = EventReader()
    event = encode_event(0)
    sent_ns = int(event[12:31])

    reader.feed(event, sent_ns + 1500)

    assert reader.delays_ns == [1500]
    assert reader.first_sent_ns == sent_ns


@pytest.mark.parametrize("numbers", [[1], [0, 2], [0, 0], [0, 10]])
def test_missing_and_repeated_events_are_noticed(numbers: list[int]) -> None:
    with pytest.raises(StreamError, match="expected event"):
        EventReader().feed(b"".join(encode_event(number) for number in numbers), 0)


def test_a_stream_that_ends_inside_an_event_is_noticed() -> None:
    reader = EventReader()
    reader.feed(SENT[:-1], 0)
    with pytest.raises(StreamError, match="inside an event"):
        reader.finish(5)


def test_a_stream_that_ends_early_is_noticed() -> None:
    reader = EventReader()
    reader.feed(encode_event(0), 0)
    with pytest.raises(StreamError, match="1 of 5"):
        reader.finish(5)
