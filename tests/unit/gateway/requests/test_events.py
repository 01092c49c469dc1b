"""What watchers of a call are told, and once each."""

import re

from gateway.requests.events import final_events, rank_of

VIEW: dict[str, object] = {"state": "done", "leasedAt": "t", "headAt": "t"}


def names(events: bytes) -> list[bytes]:
    return re.findall(b"event: (.*)", events)


def test_a_call_that_is_over_is_told_from_where_the_watcher_was() -> None:
    assert names(final_events(VIEW, b"")) == [b"leased", b"head", b"done"]
    assert names(final_events(VIEW, b"queued:7")) == [b"leased", b"head", b"done"]
    assert names(final_events(VIEW, b"leased")) == [b"head", b"done"]
    assert names(final_events(VIEW, b"done")) == []
    assert names(final_events({"state": "cancelled"}, b"nonsense")) == [b"cancelled"]


def test_ids_have_ranks() -> None:
    assert [rank_of(i) for i in (b"", b"queued:3", b"leased", b"head", b"failed", b"\xff")] == [
        0,
        1,
        2,
        4,
        5,
        0,
    ]
