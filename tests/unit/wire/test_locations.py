"""Which locations lead outside clients astray, and what becomes of them."""

import pytest

from wire.locations import outer_location

URL = b"https://f.example:8443"
HOST = b"model.ns.svc.cluster.local"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://127.0.0.1:8000/a?b=c#d", URL + b"/a?b=c#d"),
        (b"HTTPS://LocalHost:8000/a", URL + b"/a"),
        (b"http://0.0.0.0:8000", URL + b"/"),
        (b"http://[::1]:8000?q", URL + b"/?q"),
        (b"http://Model.ns.svc.cluster.local:8000/a", URL + b"/a"),
        (b"http://127.9.9.9:08000//x", URL + b"//x"),
        (b"//127.0.0.1:8000/a", URL + b"/a"),
    ],
)
def test_a_location_of_the_inference_server_becomes_the_clients(
    value: bytes, expected: bytes
) -> None:
    assert outer_location(value, 8000, HOST, URL) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"/a",
        b"a/b",
        b"",
        b"//127.0.0.1:8001/a",
        b"//elsewhere.example:8000/a",
        b"http://127.0.0.1/a",
        b"http://localhost:8976/callback",
        b"http://example.com:8000/a",
        b"http://127.0.0.1.example.com:8000/a",
        b"http://127.evil.example:8000/a",
        b"http://127.0.0.1:8000@example.com/a",
        b"http://x@127.0.0.1:8000/a",
        b"http://127.0.0.1:8000\\@example.com/",
        b"ftp://127.0.0.1:8000/a",
        b"http://[::1/a",
        b"http://127.0.0.1:999999/",
    ],
)
def test_every_other_location_stays_the_same_object(value: bytes) -> None:
    assert outer_location(value, 8000, HOST, URL) is value


@pytest.mark.parametrize(
    ("value", "url", "expected"),
    [
        (b"http://127.0.0.1:8000/a", URL, URL + b"/f/x/a"),
        (b"http://127.0.0.1:8000/f/x/a", URL, URL + b"/f/x/a"),
        (b"http://127.0.0.1:8000/f/xyz", URL, URL + b"/f/x/f/xyz"),
        (b"http://127.0.0.1:8000//evil.example", b"", b"/f/x//evil.example"),
        (b"/a", URL, b"/f/x/a"),
        (b"/f/x/a", URL, b"/f/x/a"),
        (b"//example.com/a", URL, b"//example.com/a"),
        (b"a", URL, b"a"),
        (b"https://example.com/a", URL, b"https://example.com/a"),
    ],
)
def test_the_part_of_the_path_that_was_removed_comes_back_once(
    value: bytes, url: bytes, expected: bytes
) -> None:
    assert outer_location(value, 8000, HOST, url, b"/f/x") == expected


@pytest.mark.parametrize(
    ("value", "port"), [(b"http://localhost/a", 80), (b"https://localhost:/a", 443)]
)
def test_a_location_without_a_port_means_that_of_its_scheme(value: bytes, port: int) -> None:
    assert outer_location(value, port, b"", URL) == URL + b"/a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://127.0.0.1:8000/a", b"/a"),
        (b"http://127.0.0.1:8000//evil.example/a", b"/.//evil.example/a"),
    ],
)
def test_for_a_client_that_named_no_host_it_becomes_relative(value: bytes, expected: bytes) -> None:
    assert outer_location(value, 8000, b"", b"") == expected
