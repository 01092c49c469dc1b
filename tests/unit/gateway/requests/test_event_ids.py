"""Where a stream of events goes on after the event that a client has seen last."""

import pytest

from gateway.requests.event_ids import EventSearch

STREAM = (
    b"id: 1\ndata: a\n\n: comment\ndata: id: 2\n\ndata: b\r\nid:2\r\n\r\n"
    b"id: 3\rdata: c\r\revent: x\n\n"
)


@pytest.mark.parametrize("step", range(1, len(STREAM) + 1))
@pytest.mark.parametrize(
    ("event_id", "rest"),
    [
        (b"1", b": comment\ndata: id: 2\n\ndata: b\r\nid:2\r\n\r\nid: 3\rdata: c\r\revent: x\n\n"),
        (b"2", b"id: 3\rdata: c\r\revent: x\n\n"),
        (b"3", b"event: x\n\n"),
        (b"4", None),
    ],
)
def test_it_goes_on_behind_the_event_with_the_id(
    event_id: bytes, rest: bytes | None, step: int
) -> None:
    search = EventSearch(event_id)
    for at in range(0, len(STREAM), step):
        search.add(STREAM[at : at + step])
    assert (None if search.found_at is None else STREAM[search.found_at :]) == rest


def test_a_long_line_is_no_id_and_takes_no_memory() -> None:
    search = EventSearch(b"1")
    for _ in range(100):
        search.add(b"x" * 10_000)
    search.add(b"\nid: 1\n\nrest")
    assert search.found_at == 100 * 10_000 + len(b"\nid: 1\n\n")
