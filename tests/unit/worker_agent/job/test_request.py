"""What the inference server gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.envelopes import REQUEST_ID, REQUESTED_AT_NS, envelope
from wire.decoded_envelope import Envelope
from worker_agent.job.request import PlatformHeaders, RequestError, build_request, poll_seconds

PLATFORM_HEADERS = PlatformHeaders(
    "127.0.0.1:8000",
    [("NVCF-REGION", "zone"), ("NVCF-ENV", "")],
    asset_dir="/assets",
    large_output_dir="/out",
)


def lines(given: Envelope, later_s: int = 0) -> list[bytes]:
    request = build_request(given, PLATFORM_HEADERS, REQUESTED_AT_NS + later_s * 1_000_000_000)
    head = request.head
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def framing(given: Envelope) -> list[bytes]:
    return [
        line
        for line in lines(given)
        if line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]


def test_the_head_is_the_callers_plus_the_platforms() -> None:
    got = lines(
        envelope(
            path=b"/x%2Fy?q=a%20b",
            headers=((b"accept", b"a"), (b"accept", b"b"), (b"cookie", b"c")),
            body=b"12345",
        )
    )
    assert got == [
        b"POST /x%2Fy?q=a%20b HTTP/1.1",
        b"accept: a",
        b"accept: b",
        b"cookie: c",
        b"NVCF-REQID: " + REQUEST_ID.encode(),
        b"NVCF-SUB: caller",
        b"NVCF-NCAID: account",
        b"NVCF-ASSET-DIR: /assets/" + REQUEST_ID.encode(),
        b"NVCF-LARGE-OUTPUT-DIR: /out/" + REQUEST_ID.encode(),
        b"NVCF-MAX-RESPONSE-SIZE-BYTES: 5242880",
        b"NVCF-INVOCATION-REGION: ",
        b"Nvcf-Poll-Seconds: 60",
        b"Host: 127.0.0.1:8000",
        b"NVCF-REGION: zone",
        b"NVCF-ENV: ",
        b"Content-Length: 5",
    ]


def test_a_callers_platform_and_hop_headers_are_dropped_in_any_case() -> None:
    forged = (b"NVCF-SUB", b"nvcf-Ncaid", b"Connection", b"transfer-encoding", b"Host", b"expect")
    got = lines(envelope(headers=tuple((name, b"forged") for name in forged)))
    assert not [line for line in got if b"forged" in line]


@pytest.mark.parametrize(
    "name",
    [
        b"nvcf_sub",
        b"Nvcf_NcaId",
        b"NVCF-FUNCTION_VERSION-ID",
        b"nvcf_max_response_size_bytes",
        b"nvcf_poll-seconds",
        b"content_length",
        b"Transfer_Encoding",
    ],
)
def test_a_name_that_servers_read_as_one_of_the_platforms_is_dropped(name: bytes) -> None:
    got = lines(envelope(headers=((name, b"7"), (b"x_user_name", b"kept"))))
    assert not [line for line in got if line.lower().startswith(name.lower())]
    assert b"x_user_name: kept" in got


def test_a_value_that_is_not_utf_8_goes_out_as_it_came() -> None:
    assert b"x-user: M\xfcller" in lines(envelope(headers=((b"x-user", b"M\xfcller"),)))


def test_the_time_left_to_answer_is_what_the_caller_grants_less_the_wait() -> None:
    given = envelope(headers=((b"nvcf-poll-seconds", b"45"),))
    assert b"Nvcf-Poll-Seconds: 45" in lines(given)
    assert b"Nvcf-Poll-Seconds: 40" in lines(given, later_s=5)
    assert b"Nvcf-Poll-Seconds: 0" in lines(given, later_s=50)
    assert b"Nvcf-Poll-Seconds: 45" in lines(given, later_s=-50)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"", 60), (b"abc", 60), (b"30", 30), (b"0", 0), (b"9999", 3600), (b"-1", 60)],
)
def test_poll_seconds_are_read_as_the_specification_says(value: bytes, seconds: int) -> None:
    assert poll_seconds(value) == seconds


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (envelope(b"GET"), []),
        (envelope(b"POST"), [b"Content-Length: 0"]),
        (envelope(b"POST", headers=((b"content-length", b"0"),)), [b"Content-Length: 0"]),
        (envelope(b"DELETE", headers=((b"content-length", b"0"),)), [b"Content-Length: 0"]),
        (envelope(b"POST", body=b"abc"), [b"Content-Length: 3"]),
        (envelope(b"GET", body=b"abc"), [b"Content-Length: 3"]),
        (envelope(b"POST", body=b"abc", has_rest=True), [b"Transfer-Encoding: chunked"]),
        (
            envelope(b"POST", headers=((b"content-length", b"9"),), body=b"abc", has_rest=True),
            [b"Content-Length: 9"],
        ),
    ],
)
def test_the_body_is_framed_by_its_length_when_that_is_known(
    given: Envelope, expected: list[bytes]
) -> None:
    assert framing(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        envelope(b"PO ST"),
        envelope(b""),
        envelope(path=b"/a b"),
        envelope(path=b"/a\r\nx: y"),
        envelope(headers=((b"x y", b"z"),)),
        envelope(headers=((b"x", b"a\nb"),)),
        envelope(headers=((b"x", b"a\0b"),)),
        envelope(headers=((b"content-length", b"4"),), body=b"abc"),
        envelope(headers=((b"content-length", b"2"),), body=b"abc", has_rest=True),
        envelope(headers=((b"content-length", b"x"),)),
        envelope(headers=((b"", b"1"),)),
        envelope(headers=((b"transfer-encoding: chunked, x", b"1"),)),
        envelope(headers=((b"content-length", b"3"), (b"content-length", b"4")), body=b"abc"),
    ],
)
def test_what_is_no_request_is_refused(given: Envelope) -> None:
    with pytest.raises(RequestError):
        build_request(given, PLATFORM_HEADERS, 0)


@given(
    st.lists(
        st.tuples(
            st.text("aB-:\r\n \0\t", min_size=1, max_size=4), st.text("x\r\n\0:", max_size=6)
        ),
        max_size=4,
    )
)
def test_no_header_ever_writes_a_line_of_its_own(headers: list[tuple[str, str]]) -> None:
    given = envelope(headers=tuple((name.encode(), value.encode()) for name, value in headers))
    try:
        got = lines(given)
    except RequestError:
        return
    assert len(got) <= 14 + len(headers)
    assert all(b"\n" not in line and b"\r" not in line for line in got)


def test_an_identity_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        PlatformHeaders("h:1", [("NVCF-ENV", "a\nb")], asset_dir="", large_output_dir="")


@pytest.mark.parametrize(("value", "passes"), [(b"true", True), (b"false", False), (b"", False)])
def test_the_inference_server_is_not_told_whether_interim_responses_are_passed_on(
    value: bytes, passes: bool
) -> None:
    given = envelope(headers=((b"NVCF-Pass-Interim", value),) if value else ())
    request = build_request(given, PLATFORM_HEADERS, REQUESTED_AT_NS)
    assert request.passes_interim is passes
    assert b"interim" not in request.head.lower()
