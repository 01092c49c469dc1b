import contextlib

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.http1 import (
    LAST_CHUNK,
    HeadError,
    InnerHead,
    InnerHeadParser,
    encode_chunk,
    encode_request_head,
    encode_response_head,
    parse_inner_head,
    status_line,
)

Headers = list[tuple[bytes, bytes]]

LIMIT = 417_792
HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream\r\n"
    b"Set-Cookie: a=1\r\n"
    b"set-cookie:b=2 \t\r\n"
    b"Connection: close, X-Hop\r\n"
    b"X-Hop: 1\r\n"
    b"Keep-Alive: timeout=5\r\n"
    b"X-Empty:\r\n"
    b"Content-Length: 6\r\n"
    b"\r\n"
)
READ = InnerHead(
    200,
    [
        (b"content-type", b"text/event-stream"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-empty", b""),
    ],
    6,
)

tokens = st.text("abcxyz0-_!", min_size=1, max_size=10).map(lambda name: b"x-" + name.encode())
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
header_lists = st.lists(st.tuples(tokens, visible.map(str.encode)), max_size=6)


def head_with(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


def fed_in_steps(data: bytes, step: int) -> tuple[InnerHead | None, bytes]:
    parser = InnerHeadParser()
    rest = b""
    for at in range(0, len(data), step):
        part = data[at : at + step]
        if parser.head is None:
            rest = parser.feed(part) or b""
        else:
            rest += part
    return parser.head, rest


def head_of_size(size: int) -> bytes:
    around = len(head_with(b"x: "))
    return head_with(b"x: " + b"v" * (size - around))


def test_a_head_is_read_without_what_belongs_to_the_connection() -> None:
    assert parse_inner_head(HEAD + b"body\r\n\r\n") == (READ, len(HEAD))


@pytest.mark.parametrize("step", [1, 2, 7, 50, len(HEAD) + 6])
def test_any_split_gives_the_same_head_and_rest(step: int) -> None:
    assert fed_in_steps(HEAD + b"body\r\n", step) == (READ, b"body\r\n")


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.1 404 ", 404),
        (b"HTTP/1.1 599", 599),
        (b"HTTP/1.0 503 Service \xe9 Unavailable", 503),
    ],
)
def test_status_lines_with_and_without_a_phrase(first: bytes, status: int) -> None:
    assert parse_inner_head(head_with(first=first)) == (InnerHead(status, [], None), len(first) + 4)


@pytest.mark.parametrize(
    "head",
    [
        head_with(first=b""),
        head_with(first=b"HTTP/2 200 OK"),
        head_with(first=b"HTTP/1.1  200 OK"),
        head_with(first=b"HTTP/1.1 20 OK"),
        head_with(first=b"HTTP/1.1 2000 OK"),
        head_with(first=b"HTTP/1.1 200OK"),
        head_with(first=b"HTTP/1.1 100 Continue"),
        head_with(first=b"HTTP/1.1 600 No"),
        head_with(first=b"GET / HTTP/1.1"),
        head_with(first=b"HTTP/1.1 200 O\x00K"),
        head_with(b"no colon"),
        head_with(b": no name"),
        head_with(b"x : blank before the colon"),
        head_with(b"x: 1", b" folded: 2"),
        head_with(b"x: 1", b"\tfolded"),
        head_with(b"x y: 1"),
        head_with(b"x\xe9: 1"),
        head_with(b"x: a\x00b"),
        head_with(b"x: a\x7fb"),
        head_with(b"x: a\nb: 2"),
        head_with(b"x: a\rb: 2"),
        head_with(b"x: 1\r"),
        head_with(b"content-length: 1", b"Content-Length: 1"),
        head_with(b"content-length: 1, 1"),
        head_with(b"content-length: +1"),
        head_with(b"content-length: 1_0"),
        head_with(b"content-length:"),
        head_with(b"content-length: " + b"9" * 19),
        head_with(b"transfer-encoding: chunked"),
        head_with(b"transfer-encoding: identity, chunked"),
    ],
)
def test_a_malformed_head_is_refused(head: bytes) -> None:
    with pytest.raises(HeadError) as raised:
        parse_inner_head(head)
    assert raised.value.status == 400


def test_an_identity_transfer_encoding_means_nothing_and_stays_behind() -> None:
    parsed = parse_inner_head(head_with(b"transfer-encoding: Identity", b"x: 1"))
    assert parsed is not None
    assert parsed[0] == InnerHead(200, [(b"x", b"1")], None)


def test_the_limit_on_headers_is_exact() -> None:
    assert parse_inner_head(head_with(*[b"x: 1"] * 256)) is not None
    with pytest.raises(HeadError) as raised:
        parse_inner_head(head_with(*[b"x: 1"] * 257))
    assert raised.value.status == 431


@pytest.mark.parametrize("step", [LIMIT - 1, LIMIT, LIMIT + 100])
def test_the_limit_on_bytes_is_exact_however_they_come(step: int) -> None:
    head, rest = fed_in_steps(head_of_size(LIMIT) + b"body", step)
    assert head is not None
    assert rest == b"body"
    with pytest.raises(HeadError) as raised:
        fed_in_steps(head_of_size(LIMIT + 1) + b"body", step)
    assert raised.value.status == 431


def test_an_endless_head_is_refused_at_the_limit() -> None:
    parser = InnerHeadParser()
    assert parser.feed(b"x" * (LIMIT - 1)) is None
    with pytest.raises(HeadError):
        parser.feed(b"x")


@given(st.binary(max_size=80), st.integers(0, len(HEAD)), st.integers(0, len(HEAD)))
def test_noise_raises_nothing_but_the_documented_error(noise: bytes, start: int, end: int) -> None:
    with contextlib.suppress(HeadError):
        parsed = parse_inner_head(HEAD[:start] + noise + HEAD[end:])
        for name, value in parsed[0].headers if parsed is not None else []:
            assert not set(name) & set(b" :\r\n\0\t")
            assert not set(value) & set(b"\r\n\0")


@given(st.integers(200, 599), header_lists)
def test_a_response_head_is_read_back_by_h11_and_by_our_own_parser(
    status: int, headers: Headers
) -> None:
    head = encode_response_head(status, headers, b"content-length: 5\r\n")
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    peer.receive_data(head)
    event = peer.next_event()
    assert isinstance(event, h11.Response)
    assert (event.status_code, list(event.headers)) == (
        status,
        [*headers, (b"content-length", b"5")],
    )
    assert parse_inner_head(head) == (InnerHead(status, headers, 5), len(head))


@given(header_lists, st.lists(st.binary(min_size=1, max_size=40), max_size=4))
def test_a_chunked_request_is_read_back_by_h11(headers: Headers, chunks: list[bytes]) -> None:
    headers = [(b"host", b"x"), *headers]
    framing = b"transfer-encoding: chunked\r\n"
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(encode_request_head(b"POST", b"/a?b=%20", headers, framing))
    peer.receive_data(b"".join([*map(encode_chunk, chunks), LAST_CHUNK]))
    request = peer.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"POST", b"/a?b=%20")
    assert list(request.headers) == [*headers, (b"transfer-encoding", b"chunked")]
    body = b""
    while isinstance(event := peer.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"".join(chunks)


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"", b"/", []),
        (b"GET /x HTTP/1.1\r\n", b"/", []),
        (b"GET", b"", []),
        (b"GET", b"/a b", []),
        (b"GET", b"/ HTTP/1.1\r\nx: y", []),
        (b"GET", b"/", [(b"x", b"1\r\ny: 2")]),
        (b"GET", b"/", [(b"x", b"1\ny: 2")]),
        (b"GET", b"/", [(b"x", b"1\r")]),
        (b"GET", b"/", [(b"x", b"\0")]),
    ],
)
def test_a_request_that_would_be_read_as_another_is_not_written(
    method: bytes, target: bytes, headers: Headers
) -> None:
    with pytest.raises(HeadError):
        encode_request_head(method, target, headers, b"")


def test_a_status_line_exists_for_every_status_and_no_other_number() -> None:
    assert status_line(422) == b"HTTP/1.1 422 Unprocessable Content\r\n"
    assert status_line(599) == b"HTTP/1.1 599 \r\n"
    for status in (99, 600):
        with pytest.raises(HeadError):
            encode_response_head(status, [], b"")


HINTS = head_with(b"Link: </a>", first=b"HTTP/1.1 103 Early Hints")
HINT = InnerHead(103, [(b"link", b"</a>")], None)


@pytest.mark.parametrize("step", [1, 7, len(HINTS), len(HINTS) + 3, 1000])
def test_interim_heads_before_the_head_are_given_out_as_they_come(step: int) -> None:
    parser = InnerHeadParser()
    data = HINTS + head_with(first=b"HTTP/1.1 102 Processing") + HEAD + b"body"
    found: list[InnerHead] = []
    rest = b""
    for at in range(0, len(data), step):
        if parser.head is None:
            rest = parser.feed(data[at : at + step]) or b""
            found += parser.interim
        else:
            rest += data[at : at + step]
    assert found == [HINT, InnerHead(102, [], None)]
    assert (parser.head, rest) == (READ, b"body")


def test_an_interim_head_is_given_out_before_the_head_has_come() -> None:
    parser = InnerHeadParser()
    assert parser.feed(HINTS) is None
    assert (parser.interim, parser.head) == ((HINT,), None)
    assert parser.feed(HEAD[:9]) is None
    assert parser.interim == ()


@pytest.mark.parametrize("first", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching Protocols"])
def test_a_worker_sends_no_100_and_no_101(first: bytes) -> None:
    with pytest.raises(HeadError):
        InnerHeadParser().feed(HINTS + head_with(first=first) + HEAD)


def test_interim_heads_are_bounded_in_number_and_bytes() -> None:
    assert InnerHeadParser().feed(HINTS * 16 + HEAD) == b""
    long = head_with(b"link: " + b"l" * 40_000, first=b"HTTP/1.1 103 ")
    assert InnerHeadParser().feed(long + HEAD) == b""
    for data in (HINTS * 17, long * 2):
        for step in (1000, len(data)):
            with pytest.raises(HeadError) as raised:
                fed_in_steps(data + HEAD, step)
            assert raised.value.status == 431
