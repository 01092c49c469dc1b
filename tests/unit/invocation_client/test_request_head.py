import httpx
import pytest

from invocation_client.request_head import has_body, request_fields


def test_host_becomes_the_authority_and_fields_of_the_connection_are_left_out() -> None:
    request = httpx.Request(
        "POST",
        "http://h:8080/a%20b?c=d",
        headers={"Connection": "keep-alive", "TE": "gzip", "X-A": "1", "Upgrade": "h2c"},
        content=b"abc",
    )
    assert request_fields(request) == [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"h:8080"),
        (b":path", b"/a%20b?c=d"),
        (b"x-a", b"1"),
        (b"content-length", b"3"),
    ]


def test_a_host_in_other_letters_is_the_servers_to_refuse() -> None:
    request = httpx.Request("GET", "http://h/", headers={b"host": b"\xc3\xbc"})
    assert (b":authority", b"\xc3\xbc") in request_fields(request)


def test_te_trailers_goes_out() -> None:
    request = httpx.Request("GET", "http://h/", headers={"te": "trailers"})
    assert (b"te", b"trailers") in request_fields(request)


@pytest.mark.parametrize("field", [("a b", "x"), ("a", "x\ny"), ("a", "x\0")])
def test_a_field_that_is_not_allowed_is_refused(field: tuple[str, str]) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_fields(httpx.Request("GET", "http://h/", headers=[field]))


@pytest.mark.parametrize(
    ("content", "expected"), [(None, False), (b"", False), (b"a", True), (iter([b"a"]), True)]
)
def test_a_body_is_announced(content: bytes | None, expected: bool) -> None:
    assert has_body(httpx.Request("POST", "http://h/", content=content)) is expected
