"""A job whose client asks for a WebSocket, between recording ports."""

import pytest

from http1.stream import Failure, Headers
from tests.support.envelopes import REQUEST_ID, REQUESTED_AT_NS, envelope
from tests.support.job_bench import PLATFORM_HEADERS, Bench
from wire.http1 import parse_inner_head
from wire.websocket import accept_of, is_key, key_from
from worker_agent.job.request import build_request
from worker_agent.job.states import DONE, Outcome

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (b"nvcf-upgrade", b"websocket")
ASKS = (UPGRADE, (b"sec-websocket-key", KEY), (b"sec-websocket-version", b"13"))
AGREED: Headers = [
    (b"upgrade", b"WebSocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-accept", accept_of(KEY)),
    (b"sec-websocket-protocol", b"chat"),
    (b"nvcf-upgraded", b"forged"),
]


def asking() -> Bench:
    return Bench(method=b"GET", has_rest=True, more=ASKS).forward()


def opened() -> Bench:
    bench = asking()
    bench.job.response_head(101, AGREED, None)
    bench.job.posted()
    bench.script.clear()
    return bench


def lines_of(*headers: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    request = build_request(
        envelope(b"GET", headers=headers, has_rest=True), PLATFORM_HEADERS, REQUESTED_AT_NS
    )
    lines = request.head.split(b"\r\n")[1:-2]
    return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}


def test_the_server_is_asked_for_an_upgrade_and_gets_no_body() -> None:
    lines = lines_of(*ASKS)
    assert (lines[b"connection"], lines[b"upgrade"]) == (b"Upgrade", b"websocket")
    assert (lines[b"sec-websocket-key"], lines[b"sec-websocket-version"]) == (KEY, b"13")
    assert not {b"transfer-encoding", b"content-length", b"nvcf-upgrade"} & lines.keys()


def test_a_client_without_a_key_gets_one_that_differs_each_time() -> None:
    lines = lines_of(UPGRADE)
    assert is_key(lines[b"sec-websocket-key"])
    assert lines[b"sec-websocket-key"] == key_from(REQUEST_ID) != key_from(REQUEST_ID[::-1])


def test_no_other_request_asks() -> None:
    for headers in ((), ((*UPGRADE[:1], b"h2c"),), ((b"connection", b"upgrade"),)):
        lines = lines_of(*headers)
        assert not {b"upgrade", b"connection", b"nvcf-upgrade"} & lines.keys()


def test_nothing_of_the_client_is_fetched_before_the_server_has_agreed() -> None:
    bench = Bench(method=b"GET", has_rest=True, more=ASKS).begin()
    bench.send()
    assert "attach.fetch" not in bench.take()
    bench.job.response_head(101, AGREED, None)
    assert bench.take() == ["registry.responding", "attach.fetch", "attach.stream None"]
    parsed = parse_inner_head(bench.attach.head)
    assert parsed is not None
    assert parsed[0].status == 200
    assert parsed[0].headers == [
        (b"sec-websocket-accept", accept_of(KEY)),
        (b"sec-websocket-protocol", b"chat"),
        (b"nvcf-upgraded", b"websocket"),
    ]
    bench.job.rest_data(b"ping")
    bench.job.response_data(b"pong")
    assert bench.take() == ["call.send_data b'ping'", "post.send_data b'pong'"]


def test_a_key_of_our_own_is_not_spoken_of() -> None:
    bench = Bench(method=b"GET", has_rest=True, more=(UPGRADE,)).forward()
    accept = (b"sec-websocket-accept", accept_of(key_from(REQUEST_ID)))
    bench.job.response_head(101, [*AGREED[:2], accept], None)
    parsed = parse_inner_head(bench.attach.head)
    assert parsed is not None
    assert parsed[0].headers == [(b"nvcf-upgraded", b"websocket")]


@pytest.mark.parametrize(
    "headers",
    [AGREED[:2], AGREED[1:], [*AGREED[:2], (b"sec-websocket-accept", b"x")], [*AGREED, AGREED[2]]],
)
def test_an_agreement_to_something_else_is_an_invalid_response(headers: Headers) -> None:
    bench = asking()
    bench.job.response_head(101, headers, None)
    assert bench.job.fault == b"inference-invalid"
    assert bench.job.defect is not None
    assert bench.job.defect.reason == "upgrade"
    assert "attach.fetch" not in bench.take()


def test_a_refusal_is_delivered_and_cannot_forge_an_agreement() -> None:
    bench = asking()
    bench.job.response_whole(200, [(b"nvcf-upgraded", b"websocket")], 2, b"no")
    assert bench.job.response == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno"
    bench = asking()
    bench.job.response_head(200, [(b"nvcf-upgraded", b"websocket"), (b"x", b"y")], None)
    assert bench.attach.head == b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n"


def test_each_side_pauses_the_other_and_its_end_is_passed_on() -> None:
    bench = opened()
    bench.job.pause_writing()
    bench.job.post_pause_writing()
    bench.job.resume_writing()
    bench.job.post_resume_writing()
    assert bench.take() == [
        "rest.pause_reading",
        "call.pause_reading",
        "rest.resume_reading",
        "call.resume_reading",
    ]
    bench.job.rest_end()
    assert bench.take() == ["registry.uploaded", "call.send_end"]
    bench.job.response_end()
    assert bench.take() == ["post.send_end", "registry.freed"]
    bench.job.post_answered(200)
    assert bench.job.outcome is Outcome.ANSWERED


@pytest.mark.parametrize("event", ["rest_broken", "post_answered", "cancel", "post_broken"])
def test_the_slot_is_free_as_soon_as_nobody_is_there_any_more(event: str) -> None:
    bench = opened()
    getattr(bench.job, event)(*([200] if event == "post_answered" else []))
    script = bench.take()
    assert "call.end" in script
    assert "registry.freed" in script
    assert bench.job.state is DONE


def test_a_server_that_breaks_off_breaks_the_post() -> None:
    bench = opened()
    bench.job.response_broken(Failure.RESET, is_stale=False)
    assert {"post.abort", "rest.close", "registry.freed"} <= set(bench.take())
