"""The same requests over both protocols are the same exchanges, and get the same responses."""

from typing import NamedTuple

import pytest

from http1.stream import Headers
from http2.frames import END_HEADERS, END_STREAM, MIN_FRAME_BYTES, Kind, encode_frame
from http2.frames import encode_headers as encode_header_frames
from http2.header_blocks import BlockDecoder, encode_headers
from tests.support.edge_harness import Exchange, Harness
from tests.support.http2_harness import RawHarness

_FRAMING = {b"content-length", b"transfer-encoding", b"host"}


class Case(NamedTuple):
    """A request. ``parts`` are those of its body; without ``announced`` its length is not known."""

    method: bytes = b"GET"
    path: bytes = b"/a"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    parts: tuple[bytes, ...] = ()
    announced: int | None = 0
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    host: bytes = b"h"

    def http1(self) -> list[bytes]:
        lines = [b"%b %b HTTP/1.1" % (self.method, self.path)]
        if self.host:
            lines.append(b"host: " + self.host)
        lines += [b"%b: %b" % header for header in self.headers]
        if self.announced is None:
            lines.append(b"transfer-encoding: chunked")
        elif self.announced:
            lines.append(b"content-length: %d" % self.announced)
        pieces = [b"\r\n".join(lines) + b"\r\n\r\n"]
        if self.announced is not None:
            return [*pieces, *self.parts]
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in self.parts]
        last = b"".join(b"%b: %b\r\n" % trailer for trailer in self.trailers)
        return [*pieces, *chunks, b"0\r\n%b\r\n" % last]

    def http2(self) -> list[bytes]:
        pseudo = [(b":method", self.method), (b":scheme", b"http"), (b":path", self.path)]
        if self.host:
            pseudo.append((b":authority", self.host))
        headers = [*pseudo, *self.headers]
        if self.announced:
            headers.append((b"content-length", b"%d" % self.announced))
        has_body = bool(self.announced != 0)
        block = encode_headers(headers)
        frames = [encode_header_frames(block, 1, MIN_FRAME_BYTES, ends=not has_body)]
        for number, part in enumerate(self.parts):
            is_last = number == len(self.parts) - 1 and not self.trailers
            frames.append(encode_frame(Kind.DATA, END_STREAM if is_last else 0, 1, part))
        if self.trailers:
            block = encode_headers(self.trailers)
            frames.append(encode_frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, block))
        elif has_body and not self.parts:
            frames.append(encode_frame(Kind.DATA, END_STREAM, 1))
        return frames


CASES = {
    "GET": Case(),
    "HEAD": Case(b"HEAD"),
    "OPTIONS of the server": Case(b"OPTIONS", b"*"),
    "a query": Case(path=b"/v1/x%2Fy?a=1&a=2"),
    "an unusual method": Case(b"PURGE"),
    "a host with a port": Case(host=b"F.Example:8080"),
    "an address": Case(host=b"[::1]:80"),
    "repeated headers": Case(headers=((b"x", b"1"), (b"x", b"2"), (b"y", b""))),
    "bytes beyond ASCII": Case(headers=((b"x", b"M\xfcller"),)),
    "a tab": Case(headers=((b"x", b"a\tb"),)),
    "a body": Case(b"POST", parts=(b"abc",), announced=3),
    "a body in parts": Case(b"POST", parts=(b"abc", b"", b"de"), announced=5),
    "a body of unknown length": Case(b"POST", parts=(b"abc", b"de"), announced=None),
    "an empty body of unknown length": Case(b"POST", announced=None),
    "trailers": Case(b"POST", parts=(b"a",), announced=None, trailers=((b"x-sum", b"1"),)),
    "Expect": Case(b"POST", headers=((b"expect", b"100-Continue"),), parts=(b"a",), announced=1),
    "TE": Case(headers=((b"te", b"trailers"),)),
    # Refused
    "no host": Case(host=b""),
    "an invalid host": Case(host=b"a b"),
    "a host with a path": Case(host=b"h/x"),
    "CONNECT": Case(b"CONNECT", b"h:1"),
    "a fragment": Case(path=b"/a#b"),
    "a path that is none": Case(path=b"a"),
    "a long method": Case(b"M" * 40),
    "a long path": Case(path=b"/" + b"x" * 17_000),
    "many headers": Case(headers=((b"x", b"y"),) * 200),
    "another expectation": Case(b"POST", headers=((b"expect", b"x"),), parts=(b"a",), announced=1),
}


def _answer(event: str, exchange: Exchange) -> None:
    if event == "end":
        headers: Headers = [(b"x-served", exchange.request.target), (b"content-type", b"text/x")]
        exchange.answer(b"body", headers=headers)


def _seen_by(harness: Harness) -> list[object]:
    found: list[object] = []
    for exchange in harness.exchanges:
        request = exchange.request
        plain = [header for header in request.headers if header[0] not in _FRAMING]
        found += [request.method, request.target, request.authority, request.host, plain]
        length = None if exchange.request.body_bytes is None else request.body_bytes
        found += [length, exchange.body_bytes, exchange.trailers, exchange.events[-1]]
    return found


def _response_1(harness: Harness) -> tuple[int, dict[bytes, bytes], bytes]:
    written = harness.transport.written
    if written.startswith(b"HTTP/1.1 100 "):
        written = written.partition(b"\r\n\r\n")[2]
    head, _, body = written.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    pairs = [line.partition(b": ")[::2] for line in lines]
    return int(first.split(b" ")[1]), dict(pairs), body


def _response_2(harness: RawHarness) -> tuple[int, dict[bytes, bytes], bytes]:
    decoder, heads, body = BlockDecoder(), [], b""
    for kind, _, _, payload in harness.frames():
        if kind == Kind.HEADERS:
            headers = decoder.decode(payload, 100_000)
            assert headers is not None
            heads.append(dict(headers))
        elif kind == Kind.DATA:
            body += payload
    head = heads[-1]
    return int(head.pop(b":status")), head, body


@pytest.mark.parametrize("name", CASES)
def test_a_request_is_the_same_over_both_protocols(name: str) -> None:
    case = CASES[name]
    old, new = Harness(on=_answer), RawHarness(on=_answer).open()
    for piece in case.http1():
        if not old.transport.is_closing() and not old.transport.eof_written:
            old.protocol.data_received(piece)
            old.loop.run()
    new.feed_raw(*case.http2())
    assert _seen_by(new) == _seen_by(old)
    status, headers, body = _response_1(old)
    new_status, new_headers, new_body = _response_2(new)
    assert new_status == status
    own = {b"connection", b"date", b"x-request-id", b"nvcf-reqid"}
    kept = {key: value for key, value in headers.items() if key not in own}
    new_kept = {key: value for key, value in new_headers.items() if key not in own}
    if status == 200:
        assert (new_kept, new_body) == (kept, body)
    else:
        assert new_kept[b"content-type"] == kept[b"content-type"] == b"application/problem+json"
        assert (b"detail" in new_body) is (b"detail" in body)
    assert new.goaway() is None
