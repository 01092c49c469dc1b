"""Response heads: what is mended, and that one parser's reading is another's."""

import contextlib
from math import inf

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.client.response_head import DefectError, PartialHead, ResponseHead, read_head
from http1.stream import Headers

OK = b"HTTP/1.1 200 OK\r\n"


def test_a_head_is_read() -> None:
    head = read_head(OK + b"Server: x\r\nX-Name: Andr\xe9 \t\r\nx-name:\r\nContent-Length: 007")
    headers = [(b"server", b"x"), (b"x-name", b"Andr\xe9"), (b"x-name", b"")]
    assert head == ResponseHead(200, headers, 7, False, True, inf)


@pytest.mark.parametrize(
    ("line", "header"),
    [
        (b"X-A : 1", (b"x-a", b"1")),
        (b"X-A\t :\t1 ", (b"x-a", b"1")),
        (b"Transfer-Encoding: Chunked \t", (b"transfer-encoding", b"Chunked")),
        (b"Transfer-Encoding : chunked", (b"transfer-encoding", b"chunked")),
    ],
)
def test_blanks_around_name_and_value_are_removed(line: bytes, header: tuple[bytes, bytes]) -> None:
    head = read_head(OK + line)
    assert head.headers == [header]
    assert head.is_chunked is (header[0] == b"transfer-encoding")


@pytest.mark.parametrize(
    "lines", [b"content-length: 2, 2", b"content-length: 2\r\nContent-Length: 2"]
)
def test_a_length_that_is_repeated_is_that_length(lines: bytes) -> None:
    assert read_head(OK + lines).body_bytes == 2


@pytest.mark.parametrize("before", [b"\r\n", b""])
@pytest.mark.parametrize("reason", [b"", b" ", b" Andr\xe9"])
def test_an_empty_line_before_and_any_reason_are_accepted(before: bytes, reason: bytes) -> None:
    assert read_head(before + b"HTTP/1.1 418" + reason).status == 418


@pytest.mark.parametrize(
    ("version", "lines", "is_persistent"),
    [
        (b"1", b"x: y", True),
        (b"1", b"connection: Close", False),
        (b"1", b"connection: x-closed", True),
        (b"1", b"connection: x, close\r\nconnection: keep-alive", False),
        (b"0", b"x: y", False),
        (b"0", b"connection: Keep-Alive", True),
    ],
)
def test_who_keeps_the_connection(version: bytes, lines: bytes, is_persistent: bool) -> None:
    assert read_head(b"HTTP/1.%b 200 OK\r\n%b" % (version, lines)).is_persistent is is_persistent


@pytest.mark.parametrize(
    ("value", "idle_s"),
    [
        (b"timeout=5", 5.0),
        (b"max=100, Timeout=2", 2.0),
        (b'timeout="3"', 3.0),
        (b"timeout=0", 0.0),
        (b"max=100", inf),
        (b"timeout=x", inf),
        (b"mytimeout=1", inf),
    ],
)
def test_for_how_long_the_server_keeps_it(value: bytes, idle_s: float) -> None:
    assert read_head(OK + b"keep-alive: " + value).idle_s == idle_s


def test_the_name_of_a_bad_header_is_shown_without_what_could_forge_a_line() -> None:
    with pytest.raises(DefectError) as raised:
        read_head(OK + b"X-\xff\x07Y" + b"z" * 100 + b": 1")
    assert raised.value.defect.header == "x-??y" + "z" * 59


class Reference:
    """The same head as httptools reads it."""

    def __init__(self, head: bytes) -> None:
        self.headers: Headers = []
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(head)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


@given(
    st.integers(100, 599).filter(lambda status: status not in (101, 204, 304)),
    st.lists(
        st.tuples(
            st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True),
            st.from_regex(rb"[^\x00-\x08\x0a-\x1f\x7f]{0,20}", fullmatch=True),
        ).filter(lambda header: header[0].lower() not in (b"upgrade", b"connection")),
        max_size=8,
    ),
)
def test_another_parser_reads_the_same(status: int, headers: Headers) -> None:
    block = b"HTTP/1.1 %d X\r\n" % status + b"\r\n".join(b"%b:%b" % header for header in headers)
    reference = Reference(block + (b"\r\n" if headers else b"") + b"\r\n")
    head = read_head(block.removesuffix(b"\r\n"))
    assert (head.status, head.headers) == (reference.status, reference.headers)


@given(st.binary(max_size=60), st.sampled_from([b"", OK, OK + b"x: y\r\n"]))
def test_no_bytes_raise_anything_else(noise: bytes, start: bytes) -> None:
    for read in (read_head, PartialHead().add):
        with contextlib.suppress(DefectError):
            read(start + noise)
