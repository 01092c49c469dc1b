"""What a head says, and every head that is refused."""

import httptools
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from http1 import stream
from http1.server.http_error import HttpError
from http1.server.limits import ServerLimits
from http1.server.request_head import (
    CLOSE,
    EXPECTS_CONTINUE,
    HTTP_1_0,
    check_partial,
    read_head,
    target_of,
)
from http1.stream import Request

LIMITS = ServerLimits()


def read(block: bytes, limits: ServerLimits = LIMITS) -> tuple[Request, int]:
    return read_head(block, limits, 5.0, stream.Peer("192.0.2.7"))


def test_a_head_becomes_a_request_byte_for_byte() -> None:
    request, flags = read(
        b"POST /v1/%41?q=a%20b HTTP/1.1\r\nHost: Fn.Example.COM:8080\r\n"
        b"X-Odd_Name:\t v\xc3\xa9 \t\r\n"
        b"Content-Length: 12\r\nX-Empty:\r\nX-Odd_Name: again"
    )
    assert (request.method, request.target) == (b"POST", b"/v1/%41?q=a%20b")
    assert request.authority == b"fn.example.com"
    assert request.headers == [
        (b"host", b"Fn.Example.COM:8080"),
        (b"x-odd_name", b"v\xc3\xa9"),
        (b"content-length", b"12"),
        (b"x-empty", b""),
        (b"x-odd_name", b"again"),
    ]
    assert request.body_bytes == 12
    assert request.received_at == 5.0
    assert flags == 0


REFUSED = {
    # The request line
    b"": 400,
    b"GET /": 400,
    b"GET  / HTTP/1.1\r\nHost: a": 400,
    b"GET / HTTP/1.1 \r\nHost: a": 400,
    b" GET / HTTP/1.1\r\nHost: a": 400,
    b"GET\t/ HTTP/1.1\r\nHost: a": 400,
    b"GET /a b HTTP/1.1\r\nHost: a": 400,
    b"G\x00T / HTTP/1.1\r\nHost: a": 400,
    b"G{T / HTTP/1.1\r\nHost: a": 400,
    b"%b / HTTP/1.1\r\nHost: a" % (b"A" * 33): 400,
    b"GET / http/1.1\r\nHost: a": 400,
    b"GET / HTTP/1\r\nHost: a": 400,
    b"GET / HTTP/1.10\r\nHost: a": 400,
    b"GET / HTTP/2.0\r\nHost: a": 505,
    b"GET / HTTP/0.9": 505,
    b"PRI * HTTP/2.0": 505,
    b"GET a HTTP/1.1\r\nHost: a": 400,
    b"GET * HTTP/1.1\r\nHost: a": 400,
    b"GET /a#b HTTP/1.1\r\nHost: a": 400,
    b"GET /\x7f HTTP/1.1\r\nHost: a": 400,
    b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a": 400,
    b"GET ftp://a/ HTTP/1.1\r\nHost: a": 400,
    b"GET http://u@a/ HTTP/1.1\r\nHost: a": 400,
    b"GET http:///x HTTP/1.1\r\nHost: a": 400,
    b"GET http://b/ HTTP/1.1\r\nHost: a": 400,
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443": 501,
    # Lines
    b"GET / HTTP/1.1\nHost: a": 400,
    b"GET / HTTP/1.1\r\nHost: a\nX: b": 400,
    b"GET / HTTP/1.1\r\nHost: a\rX: b": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc": 400,
    b"GET / HTTP/1.1\r\n Host: a": 400,
    b"GET / HTTP/1.1\r\nHost : a": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX y: b": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\n: b": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x0bc": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: b": 400,
    # Host
    b"GET / HTTP/1.1": 400,
    b"GET / HTTP/1.1\r\nX: y": 400,
    b"GET / HTTP/1.1\r\nHost:": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nhost: b": 400,
    b"GET / HTTP/1.1\r\nHost: a, b": 400,
    b"GET / HTTP/1.1\r\nHost: a/?x=": 400,
    b"GET / HTTP/1.1\r\nHost: u@a": 400,
    b"GET / HTTP/1.1\r\nHost: a:b": 400,
    b"GET / HTTP/1.1\r\nHost: a:65536": 400,
    b"GET / HTTP/1.0\r\nHost: a b": 400,
    # Framing
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked": 400,
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity": 501,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked": 501,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked": 501,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked": 501,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok": 417,
    # Size
    b"GET /%b HTTP/1.1\r\nHost: a" % (b"x" * 16_384): 414,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: %b" % (b"x" * 65_536): 431,
    b"GET / HTTP/1.1\r\nHost: a" + b"\r\nX: y" * 128: 431,
}


@pytest.mark.parametrize("block", REFUSED, ids=lambda block: repr(block)[2:60])
def test_a_head_that_could_be_read_in_two_ways_is_refused(block: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        read(block)
    assert refused.value.status == REFUSED[block]


@pytest.mark.parametrize(
    ("block", "target", "authority"),
    [
        (b"GET http://A.example:80/x?y HTTP/1.1\r\nHost: a.example", b"/x?y", b"a.example"),
        (b"GET HTTPS://a?y HTTP/1.1\r\nHost: a", b"/?y", b"a"),
        (b"GET http://a HTTP/1.0", b"/", b"a"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a", b"*", b"a"),
        (b"GET / HTTP/1.0", b"/", b""),
        (b"get / HTTP/1.1\r\nHost: [::1]:80", b"/", b"[::1]"),
    ],
)
def test_the_other_forms_of_a_target(block: bytes, target: bytes, authority: bytes) -> None:
    request, _ = read(block)
    assert (request.target, request.authority) == (target, authority)


@pytest.mark.parametrize(
    ("lines", "flags"),
    [
        (b"HTTP/1.1\r\nHost: a\r\nConnection: keep-alive", 0),
        (b"HTTP/1.1\r\nHost: a\r\nConnection: x, Close", CLOSE),
        (b"HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive", CLOSE),
        (b"HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c", 0),
        (b"HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue", EXPECTS_CONTINUE),
        (b"HTTP/1.0", HTTP_1_0 | CLOSE),
        (b"HTTP/1.0\r\nConnection: Keep-Alive", HTTP_1_0),
        (b"HTTP/1.0\r\nConnection: keep-alive, close", HTTP_1_0 | CLOSE),
        (b"HTTP/1.0\r\nExpect: 100-continue", HTTP_1_0 | CLOSE),
    ],
)
def test_the_flags_of_a_head(lines: bytes, flags: int) -> None:
    assert read(b"GET / " + lines)[1] & 7 == flags


def test_the_beginning_of_a_head_is_refused_as_soon_as_it_is_too_large() -> None:
    limits = ServerLimits(max_request_line_bytes=20, max_header_bytes=30)
    check_partial(b"G" * 20, limits)
    check_partial(b"GET / HTTP/1.1\r\n" + b"x" * 30, limits)
    with pytest.raises(HttpError, match="line is too long"):
        check_partial(b"G" * 23, limits)
    with pytest.raises(HttpError, match="headers are too"):
        check_partial(b"GET / HTTP/1.1\r\n" + b"x" * 31, limits)


@pytest.mark.parametrize(
    ("block", "target"),
    [
        (b"GET /a/%41?q=1 HTTP/1.1\r\nHost: a b", b"/a/%41"),
        (b"GET http://u:secret@a/x?q HTTP/1.1\r\nHost: a", b"/x"),
        (b"GET http://a:b?q HTTP/1.1\r\nHost: a", b"/"),
        (b"GET /x HTTP/2.0", b"/x"),
        (b"GET /x?%b HTTP/1.1\r\nHost: a" % (b"q" * 16_384), b"/x"),
        (b"GET /%b HTTP/1.1\r\nHost: a" % (b"x" * 16_384), b""),
        (b"GET /a b HTTP/1.1\r\nHost: a", b""),
        (b"GET /a#b HTTP/1.1\r\nHost: a", b""),
        (b"GET /\xe9 HTTP/1.1\r\nHost: a", b""),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443", b""),
        (b"OPTIONS * HTTP/1.1\r\nHost: a b", b""),
        (b"", b""),
    ],
    ids=lambda value: repr(value)[2:40],
)
def test_an_error_names_the_requested_path(block: bytes, target: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        read(block)
    assert refused.value.target == target


@pytest.mark.parametrize(
    ("held", "target"),
    [
        (b"GET /x HTTP/1.1\r\nX: " + b"x" * 66_000, b"/x"),
        (b"GET /x HTTP/1.1\nHost: a", b""),
        (b"GET /x HTTP/1.1\r\nHost: a\n", b"/x"),
        (b"GET /x?" + b"q" * 17_000, b"/x"),
        (b"GET /" + b"x" * 17_000, b""),
    ],
    ids=lambda value: repr(value)[2:40],
)
def test_an_error_in_an_incomplete_head_names_the_requested_path(
    held: bytes, target: bytes
) -> None:
    with pytest.raises(HttpError) as refused:
        check_partial(bytearray(held), LIMITS)
    assert refused.value.target == target


def test_an_incomplete_path_is_not_named() -> None:
    assert target_of(b"GET /a", LIMITS) == b""
    assert target_of(b"GET /a HTT", LIMITS) == b"/a"


class Peer:
    """What another parser (llhttp) makes of the same bytes."""

    def __init__(self, block: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.target = b""
        self.is_complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(block + b"\r\n\r\n")
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


NAMES = st.from_regex(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True).filter(
    lambda name: (
        name.lower()
        not in (
            b"content-length",
            b"transfer-encoding",
            b"upgrade",
            b"connection",
            b"expect",
            b"host",
        )
    )
)
VALUES = st.from_regex(rb"(?:[!-~][ -~\t]{0,20}[!-~])?", fullmatch=True)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12), st.sampled_from([b"GET", b"POST", b"PUT"]))
def test_another_parser_reads_the_same(headers: list[tuple[bytes, bytes]], method: bytes) -> None:
    block = method + b" /p?q HTTP/1.1\r\nHost: a"
    for name, value in headers:
        block += b"\r\n" + name + b": " + value
    request, _ = read(block)
    peer = Peer(block)
    assert peer.is_complete
    assert (peer.method, peer.target, peer.headers) == (
        request.method,
        request.target,
        request.headers,
    )


def outcome(block: bytes, limits: ServerLimits) -> object:
    try:
        request, flags = read(block, limits)
    except HttpError as error:
        return error.status, str(error)
    names = ("method", "target", "authority", "host", "headers", "values", "body_bytes")
    return [getattr(request, name) for name in names], flags


@pytest.mark.parametrize(
    "first",
    [
        b"GET /other?x HTTP/1.1",
        b"PROPFIND /a HTTP/1.1",
        b"GET /a HTTP/1.0",
        b"GET http://a/x HTTP/1.1",
        b"GET http://b/x HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"GET /a HTTP/2.0",
        b"GET /a b HTTP/1.1",
        b"GET /\x80 HTTP/1.1",
        b"GET /%b HTTP/1.1" % (b"x" * LIMITS.max_request_line_bytes),
    ],
)
def test_known_header_lines_change_nothing(first: bytes) -> None:
    lines = b"\r\nHost: A:80\r\nConnection: close\r\nContent-Length: 5\r\nX-Own: 1"
    for number in range(3):
        read(b"GET /%d HTTP/1.1%b" % (number, lines))
    # What is known holds for one object of limits only.
    assert outcome(first + lines, LIMITS) == outcome(first + lines, ServerLimits())


@given(st.binary(max_size=60), st.binary(max_size=20))
@example(b"GET / HTTP/1.1\r\nHost: a", b"\r\nContent-Length: 5")
def test_no_bytes_crash_it_and_an_accepted_head_is_safe_to_forward(
    head: bytes, tail: bytes
) -> None:
    block = head + b"\r\nHost: a" + tail
    assume(b"\r\n\r\n" not in block)
    try:
        request, _ = read(block)
    except HttpError:
        return
    for name, value in request.headers:
        assert name == name.lower()
        assert not set(name + value) & set(b"\r\n\0")
        assert value == value.strip(b" \t")
