"""Responses in any interleaving of writes, windows, slow sockets and resets."""

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from http2.frames import (
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    MAX_WINDOW,
    Code,
    Kind,
    Setting,
    encode_frame,
    encode_rst_stream,
    encode_settings,
    encode_window_update,
)
from http2.header_blocks import encode_headers
from tests.support.http2_harness import RawHarness, request_headers

_HEAD = encode_headers(request_headers(b"POST"))
_KINDS = (
    *("ask", "data", "data", "data", "end", "end", "trailers", "abort", "upload"),
    *("settings", "settings", "stream window", "window", "stick", "drain", "reset"),
)
_STEPS = st.lists(
    st.tuples(st.sampled_from(_KINDS), st.integers(0, 5), st.integers(0, 80_000)),
    min_size=8,
    max_size=40,
)


class _Client:
    """Knows the windows that it has given, and checks each frame against them."""

    def __init__(self) -> None:
        self.harness = RawHarness().open()
        self.streams: list[int] = []
        self.window = FIRST_WINDOW
        self.initial = FIRST_WINDOW
        self.windows: dict[int, int] = {}
        self.sent: dict[int, bytes] = defaultdict(bytes)
        self.got: dict[int, bytes] = defaultdict(bytes)
        self.ended: set[int] = set()
        self.trailers: set[int] = set()
        self.over: set[int] = set()
        self.broken: set[int] = set()
        self._read_frames = 0

    def feed(self, frame: bytes) -> None:
        self.harness.feed_raw(frame)
        self.check()

    def check(self) -> None:
        self.harness.loop.run()
        frames = self.harness.frames()
        for kind, flags, number, payload in frames[self._read_frames :]:
            if kind == Kind.DATA:
                assert number not in self.ended, "data after the end"
                self.window -= len(payload)
                self.windows[number] -= len(payload)
                assert not payload or self.window >= 0, "more than the connection's window"
                assert not payload or self.windows[number] >= 0, "more than a stream's window"
                self.got[number] += payload
            if kind in (Kind.DATA, Kind.HEADERS) and flags & END_STREAM:
                self.ended.add(number)
            if kind == Kind.RST_STREAM:
                self.broken.add(number)
        self._read_frames = len(frames)

    def writer(self, number: int) -> Any:
        return self.harness.exchanges[self.streams.index(number)].writer

    def do(self, kind: str, which: int, size: int) -> None:  # noqa: C901
        harness = self.harness
        if kind == "ask":
            number = 2 * len(self.streams) + 1
            self.streams.append(number)
            self.windows[number] = self.initial
            self.feed(encode_frame(Kind.HEADERS, END_HEADERS, number, _HEAD))
        elif kind == "settings":
            value = (0, 1, 5, 1000, FIRST_WINDOW, 200_000)[which % 6]
            for number in self.windows:
                self.windows[number] += value - self.initial
            self.initial = value
            self.feed(encode_settings({Setting.INITIAL_WINDOW_SIZE: value}))
        elif kind == "window":
            self.window += size + 1
            self.feed(encode_window_update(0, size + 1))
        elif kind == "stick":
            harness.transport.is_stuck = True
        elif kind == "drain":
            harness.transport.drain()
        elif self.streams:
            number = self.streams[which % len(self.streams)]
            if kind == "stream window":
                self.windows[number] += size + 1
                self.feed(encode_window_update(number, size + 1))
            elif kind == "reset":
                self.over.add(number)
                self.broken.add(number)
                self.feed(encode_rst_stream(number, Code.CANCEL))
            elif kind == "upload" and number not in self.broken:
                self.feed(encode_frame(Kind.DATA, 0, number, bytes(size % 16_384)))
            elif number not in self.over:
                self._write(kind, number, size)
        self.check()

    def _write(self, kind: str, number: int, size: int) -> None:
        writer = self.writer(number)
        if number not in self.sent:
            self.sent[number] = b""
            writer.send_head(200, [], None)
        if kind == "data":
            data = bytes([number % 251]) * size
            self.sent[number] += data
            writer.send_data(data)
        elif kind in ("end", "trailers"):
            self.over.add(number)
            if kind == "trailers":
                self.trailers.add(number)
                writer.add_trailers([(b"x", b"y")])
            writer.send_end()
        elif kind == "abort":
            self.over.add(number)
            writer.abort()

    def open_everything(self) -> None:
        """Read all, and let all windows be large."""
        self.harness.transport.drain()
        self.check()
        more = MAX_WINDOW // 2
        self.window += more
        self.feed(encode_window_update(0, more))
        for number in self.streams:
            if number not in self.broken:
                self.windows[number] += more
                self.feed(encode_window_update(number, more))


@settings(max_examples=300)
@given(_STEPS)
def test_every_response_arrives_whole_and_within_its_windows(
    steps: list[tuple[str, int, int]],
) -> None:
    client = _Client()
    client.do("ask", 0, 0)
    client.do("ask", 0, 0)
    for kind, which, size in steps:
        client.do(kind, which, size)
    client.open_everything()
    assert client.harness.goaway() is None
    for number in client.streams:
        if number not in client.broken:
            assert client.got[number] == client.sent[number]
            assert (number in client.ended) is (number in client.over)
            assert not client.harness.exchanges[(number - 1) // 2].writer.is_writing_paused()
        else:
            assert client.sent[number].startswith(client.got[number])
    for exchange in client.harness.exchanges:
        pauses = [event for event in exchange.events if event.endswith("_writing")]
        assert pauses[::2] == ["pause_writing"] * len(pauses[::2])
        assert pauses[1::2] == ["resume_writing"] * len(pauses[1::2])
