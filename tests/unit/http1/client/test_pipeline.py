"""Pipelined POSTs without a socket."""

from typing import Any

import pytest

from http1.client.pipeline import Pipeline


class Transport:
    """As much of `asyncio.Transport` as a pipeline uses."""

    is_aborted = False

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Clock:
    """The loop, the owner of the pipeline, and the record of all calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def time(self) -> float:
        return 1.0

    def pipeline_lost(self, _: Pipeline) -> None: ...


class Delivered:
    """The callbacks of one POST; records them."""

    def __init__(self, calls: list[str], name: str) -> None:
        self._calls = calls
        self._name = name

    def post_answered(self, status: int) -> None:
        self._calls.append(f"{self._name} {status}")

    def post_broken(self, *, is_unread: bool = False) -> None:
        self._calls.append(f"{self._name} {'unread' if is_unread else 'lost'}")


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (b"HTTP/1.1 401 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", "unread"),
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "lost"),
    ],
)
def test_only_a_post_behind_an_announced_close_is_certainly_unread(
    answer: bytes, fate: str
) -> None:
    clock: Any = Clock()
    transport: Any = Transport()
    pipeline = Pipeline(clock, clock)
    pipeline.connection_made(transport)
    for name in ("a", "b"):
        job: Any = Delivered(clock.calls, name)
        pipeline.post(job, b"POST", 1.0)
    pipeline.data_received(answer)
    pipeline.connection_lost(None)
    assert clock.calls == ["a 401", f"b {fate}"]
