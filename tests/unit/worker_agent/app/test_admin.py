"""The pages of the agent's admin endpoint."""

import json

import httpx
import pytest

from http1.stream import Headers, Request
from runtime.metrics import MetricRegistry
from runtime.settings import Address
from runtime.tasks import spawn
from tests.support.waiting import until
from worker_agent.app.admin import Admin


class Writer:
    """A `ResponseWriter` that keeps one response."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.length: int | None = None
        self.body = b""
        self.has_ended = False

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        self.status, self.headers, self.length = status, headers, body_bytes

    def send_data(self, data: bytes) -> None:
        self.body += data

    def add_trailers(self, trailers: Headers) -> None: ...

    def send_end(self) -> None:
        self.has_ended = True

    def abort(self) -> None:
        raise AssertionError

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_writing_paused(self) -> bool:
        return False


def ask(method: bytes, target: bytes, failures: dict[str, str] | None = None) -> Writer:
    writer = Writer()
    admin = Admin(MetricRegistry(), lambda: failures or {})
    admin.serve(Request(method, target, b"h", [], 0, 0.0), writer)
    assert writer.has_ended
    return writer


@pytest.mark.parametrize(
    ("target", "status", "content_type", "body"),
    [
        (b"/health/live", 200, b"text/plain", b"OK\n"),
        (b"/v1/health/live?x", 200, b"text/plain", b"OK\n"),
        (b"/v1/health/ready", 200, b"application/json", b'{"status": "OK"}'),
        (b"/", 404, b"text/plain", b"no such page\n"),
    ],
)
def test_a_path_has_its_page(target: bytes, status: int, content_type: bytes, body: bytes) -> None:
    got = ask(b"GET", target)
    assert (got.status, got.body, got.length) == (status, body, len(body))
    assert got.headers == [(b"content-type", content_type)]


def test_an_agent_that_is_not_ready_names_the_reasons() -> None:
    got = ask(b"GET", b"/health/ready", {"nats": "not connected"})
    assert got.status == 503
    assert json.loads(got.body) == {
        "status": "Unavailable",
        "failures": {"nats": "not connected"},
    }


def test_head_has_no_body_and_other_methods_are_not_allowed() -> None:
    got = ask(b"HEAD", b"/health/live")
    assert (got.status, got.body, got.length) == (200, b"", 3)
    got = ask(b"POST", b"/metrics")
    assert (got.status, got.body) == (405, b"GET only\n")


def test_metrics_are_in_the_prometheus_text_format() -> None:
    got = ask(b"GET", b"/metrics")
    assert got.status == 200
    assert dict(got.headers)[b"content-type"].startswith(b"text/plain; version=0.0.4")


async def test_a_request_to_drain_is_answered_when_the_agent_has_drained() -> None:
    asked: list[str] = []
    admin = Admin(MetricRegistry(), dict, "t1")
    await admin.listen(Address.parse("127.0.0.1:0"), lambda: asked.append("drain"))
    try:
        headers = {"Authorization": "Bearer t1"}
        url = f"http://127.0.0.1:{admin.port}/drain"
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).status_code == 403
            assert asked == []
            waiting = spawn(client.get(url, headers=headers), "tests.drain")
            await until(lambda: asked)
            assert not waiting.done()
            admin.respond_to_drains()
            assert (await waiting).text == "drained\n"
    finally:
        admin.close()


def test_without_a_token_nobody_can_drain_the_agent() -> None:
    assert ask(b"GET", b"/drain").status == 404
