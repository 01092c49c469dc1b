"""What watchers of a call are told, and once each."""

import re
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.requests.detached import QUEUED_STATE, DetachedCall
from gateway.requests.events import WatchedPositions, final_events, rank_of

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


@pytest.mark.parametrize(
    ("position", "is_stored", "expected"), [(0, False, None), (0, True, 0), (3, True, 3)]
)
async def test_a_request_that_is_not_stored_yet_is_not_taken_for_a_leased_one(
    position: int, is_stored: bool, expected: int | None
) -> None:
    async def look(version_id: str, request_id: str) -> int:
        return position

    waiting = SimpleNamespace(
        state=QUEUED_STATE, invocation=object(), version_id="v", request_id="r"
    )
    positions = WatchedPositions(look, lambda _: is_stored, lambda *_: None)
    assert await positions.of(cast(DetachedCall, waiting)) == expected
