"""Which calls are detached, and what their function is told."""

import pytest

from gateway.errors import BadRequest
from gateway.requests.prefer import Terms, detached_headers, preferences, terms_of
from http1.stream import Headers, Request


def request(*headers: tuple[bytes, bytes]) -> Request:
    return Request(b"POST", b"/", b"f.example", list(headers), 0, 0.0)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"respond-async"], {b"respond-async": b""}),
        ([b"Respond-Async, wait=10"], {b"respond-async": b"", b"wait": b"10"}),
        ([b"wait=10", b"respond-async"], {b"wait": b"10", b"respond-async": b""}),
        ([b"wait = 5 ; x=1 , respond-async;y"], {b"wait": b"5", b"respond-async": b""}),
        ([b'a="x, respond-async; \\"", b'], {b"a": b'x, respond-async; "', b"b": b""}),
        ([b"wait=1, wait=2"], {b"wait": b"1"}),
        ([b",, ;;, =3, (x)"], {}),
    ],
)
def test_preferences_are_read_as_rfc_7240_says(
    values: list[bytes], found: dict[bytes, bytes]
) -> None:
    assert preferences(values) == found


@pytest.mark.parametrize(
    ("headers", "terms"),
    [
        ([(b"prefer", b"return=minimal")], None),
        ([(b"prefer", b"wait=10")], None),
        ([(b"prefer", b"respond-async")], Terms(is_async=True)),
        ([(b"prefer", b"respond-async, wait=10")], Terms(is_async=True, wait_s=10)),
        ([(b"prefer", b"wait=x"), (b"prefer", b"respond-async")], Terms(is_async=True)),
        ([(b"nvcf-detach", b"On-Disconnect ")], Terms()),
        (
            [(b"nvcf-detach", b"on-disconnect"), (b"prefer", b"respond-async")],
            Terms(is_async=True),
        ),
    ],
)
def test_a_call_is_detached_only_on_request(headers: Headers, terms: Terms | None) -> None:
    assert terms_of(request(*headers)) == terms


@pytest.mark.parametrize("value", [b"", b"true", b"on-disconnect, x"])
def test_another_value_of_nvcf_detach_is_an_error(value: bytes) -> None:
    with pytest.raises(BadRequest):
        terms_of(request((b"nvcf-detach", value), (b"prefer", b"respond-async")))


def test_the_function_gets_no_header_that_was_acted_on() -> None:
    headers = [
        (b"prefer", b"respond-async, handling=lenient;x, wait=5"),
        (b"prefer", b"wait=7"),
        (b"nvcf-detach", b"on-disconnect"),
        (b"nvcf-poll-seconds", b"5"),
        (b"accept", b"*/*"),
    ]
    window = (b"nvcf-poll-seconds", b"3600")
    assert detached_headers(headers, Terms(is_async=True), 3600) == [
        (b"prefer", b"handling=lenient;x"),
        (b"accept", b"*/*"),
        window,
    ]
    assert detached_headers(headers, Terms(), 3600) == [*headers[:2], headers[4], window]
