"""One HTTP/2 connection of the server between a real client codec and recording ports."""

from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from http2.frames import FRAME_HEAD, HEAD_BYTES, PREFACE, Kind, encode_settings
from http2.server.protocol import Http2Protocol
from tests.support.edge_harness import Exchange, Harness

AUTHORITY = b"f.example"


def request_headers(
    method: bytes = b"GET", path: bytes = b"/a", *more: tuple[bytes, bytes]
) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", AUTHORITY),
        (b":path", path),
        *more,
    ]


class Response:
    """What the client has got on one stream."""

    def __init__(self) -> None:
        self.interim: list[list[tuple[bytes, bytes]]] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] = []
        self.is_ended = False
        self.reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.headers)[b":status"])


class Http2Harness(Harness):
    """``client`` is the codec of h2; what it sends goes to the server, and back."""

    def __init__(self, *arguments: Any, is_checked: bool = True, **options: Any) -> None:
        """Not ``is_checked``: the client may send what is against the rules."""
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=is_checked,
            normalize_outbound_headers=is_checked,
        )
        self.client = h2.connection.H2Connection(config)
        self.responses: dict[int, Response] = {}
        self.goaway: h2.events.ConnectionTerminated | None = None
        self.acknowledged = 0
        self._read_bytes = 0
        # Windows that the client opens again when it has read.
        self.reads = True
        super().__init__(*arguments, **options)
        self.client.initiate_connection()
        self.exchange()

    def _make_protocol(self) -> Any:
        return Http2Protocol(self.connections)

    def exchange(self) -> None:
        """Let what client and server have sent arrive, until both are silent."""
        while True:
            data = self.client.data_to_send()
            if data and not self.transport.is_closing():
                self.protocol.data_received(data)
            self.loop.run()
            fresh = self.transport.written[self._read_bytes :]
            self._read_bytes += len(fresh)
            if not fresh and not data:
                return
            self._take(fresh)

    def _take(self, data: bytes) -> None:  # noqa: C901 - one case for each event
        for event in self.client.receive_data(data):
            number = getattr(event, "stream_id", 0) or 0
            response = self.responses.setdefault(number, Response())
            match event:
                case h2.events.InformationalResponseReceived():
                    response.interim.append(list(event.headers or []))
                case h2.events.ResponseReceived():
                    response.headers = list(event.headers or [])
                case h2.events.TrailersReceived():
                    response.trailers = list(event.headers or [])
                case h2.events.DataReceived():
                    response.body += event.data or b""
                    if self.reads and event.flow_controlled_length:
                        self.client.acknowledge_received_data(event.flow_controlled_length, number)
                case h2.events.StreamEnded():
                    response.is_ended = True
                case h2.events.StreamReset():
                    response.reset = event.error_code
                case h2.events.ConnectionTerminated():
                    self.goaway = event
                case h2.events.PingAckReceived():
                    self.acknowledged += 1

    def ask(
        self,
        method: bytes = b"GET",
        path: bytes = b"/a",
        *more: tuple[bytes, bytes],
        ends: bool = True,
    ) -> int:
        """Send the head of a request; return its stream."""
        number: int = self.client.get_next_available_stream_id()
        self.client.send_headers(number, request_headers(method, path, *more), end_stream=ends)
        self.responses[number] = Response()
        self.exchange()
        return number

    def send(self, number: int, data: bytes, *, ends: bool = False) -> None:
        """Send a part of a body."""
        self.client.send_data(number, data, end_stream=ends)
        self.exchange()

    def of(self, number: int) -> Exchange:
        """Return the exchange of the stream that was opened as the n-th one."""
        return self.exchanges[(number - 1) // 2]


class RawHarness(Harness):
    """A connection whose client is the test: it sends frames, right or wrong."""

    def _make_protocol(self) -> Any:
        return Http2Protocol(self.connections)

    def open(self) -> "RawHarness":
        """Send what a connection begins with."""
        self.feed_raw(PREFACE + encode_settings({}))
        return self

    def feed_raw(self, *pieces: bytes) -> None:
        """Each piece is one read."""
        for piece in pieces:
            if not self.transport.is_closing() and not self.transport.eof_written:
                self.protocol.data_received(piece)
                self.loop.run()

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Return kind, flags, stream and payload of all frames that the server has sent."""
        found, data, at = [], self.transport.written, 0
        while at < len(data):
            high, low, kind, flags, number = FRAME_HEAD.unpack_from(data, at)
            begin = at + HEAD_BYTES
            at = begin + (high << 8 | low)
            found.append((kind, flags, number, data[begin:at]))
        return found

    def goaway(self) -> int | None:
        """Return the code with which the server has ended the connection."""
        for kind, _, _, payload in self.frames():
            if kind == Kind.GOAWAY:
                return int.from_bytes(payload[4:8])
        return None

    def resets(self) -> list[tuple[int, int]]:
        """Return the streams that the server has reset, and with which codes."""
        return [(n, int.from_bytes(p)) for kind, _, n, p in self.frames() if kind == 3]
