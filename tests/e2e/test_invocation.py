"""Invocations through everything: edge, queue, worker agent, inference server and back."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.dev import Dev
from tests.support.waiting import PATIENCE_S

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_an_answer_comes_with_its_request_id_and_status(dev: Dev) -> None:
    async with dev.client() as client:
        answer = await client.post(
            "/echo", content=b"hello", headers={"content-type": "application/x"}
        )
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert answer.headers["content-type"] == "application/x"
    assert answer.headers["nvcf-status"] == "fulfilled"
    assert len(answer.headers["nvcf-reqid"]) == 36
    assert "nvcf-reqid" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_method_path_query_and_headers_arrive_as_they_were_sent(
    dev: Dev, method: str
) -> None:
    url = httpx.URL(dev.ready["invocation_url"]).copy_with(
        raw_path=b"/reflect/a%2Fb/%7Ec//d?x=1&x=2&y=%20+"
    )
    sent = {
        "x-own": "value",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    async with dev.client() as client:
        answer = await client.request(method, url, headers=sent, content=b"body")
    seen = answer.json()
    headers = dict(seen["headers"])
    assert seen["method"] == method
    assert seen["raw_path"] == "/reflect/a%2Fb/%7Ec//d"
    assert seen["query"] == "x=1&x=2&y=%20+"
    assert seen["body_bytes"] == 4
    assert headers["x-own"] == "value"
    assert headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert "authorization" not in headers
    assert headers["nvcf-reqid"] == answer.headers["nvcf-reqid"]
    assert headers["nvcf-function-id"] == dev.ready["function_id"]
    assert headers["nvcf-function-version-id"] == dev.ready["function_version_id"]
    assert headers["nvcf-invocation-region"] == "local"


async def test_a_function_is_found_by_headers_and_by_every_form_of_its_host(dev: Dev) -> None:
    function, version = dev.ready["function_id"], dev.ready["function_version_id"]
    key = {"authorization": dev.headers["authorization"]}
    ways = [
        {"function-id": function, "host": "anything.example"},
        {"function-id": function, "function-version-id": version},
        {"host": f"{function}.invocation.localhost"},
        {"host": f"{function.upper()}.Invocation.LOCALHOST.:443"},
        {"host": f"{version}.{function}.invocation.localhost"},
    ]
    async with httpx.AsyncClient(base_url=dev.ready["invocation_url"]) as client:
        for way in ways:
            answer = await client.post("/echo", headers={**key, **way}, content=b"x")
            assert answer.status_code == 200, way


async def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:nvcf:problem-details:")
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == answer.request.url.raw_path.decode().partition("?")[0]
    request_id = answer.headers.get("nvcf-reqid") or answer.headers["x-request-id"]
    assert document["requestId"] == request_id
    return document


async def test_who_may_not_call_hears_why(dev: Dev) -> None:
    async with dev.client() as client:
        for credential in ("", "Bearer nvapi-wrong", "Basic abc"):
            answer = await client.get("/", headers={"authorization": credential})
            await problem(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        answer = await client.get("/", headers={"host": f"{UNKNOWN}.invocation.localhost"})
        await problem(answer, 404)
        answer = await client.get("/nothing", headers={"host": "api.example"})
        await problem(answer, 404)
        answer = await client.get("/", headers={"nvcf-poll-seconds": "soon"})
        await problem(answer, 400)
        answer = await client.get("/a%20b?c", headers=[("authorization", "Bearer nvapi-wrong")] * 2)
        await problem(answer, 400)


async def test_whatever_is_sent_to_the_api_no_credential_comes_back(dev: Dev) -> None:
    functions, secret = "/v2/nvcf/functions", "nvapi-" + "secret" * 1_500
    attach = "/v2/nvcf/worker/request-attach"
    async with httpx.AsyncClient(base_url=dev.ready["api_url"], timeout=PATIENCE_S) as client:
        for method, path, status in (
            ("PRI", functions, 405),
            ("FOO", functions, 405),
            ("GET", functions, 401),
            ("GET", f"/{'x' * 10_000}", 401),
            ("POST", attach, 401),
            ("PUT", attach, 405),
        ):
            headers = {"authorization": f"Bearer {secret}"}
            answer = await client.request(method, path, headers=headers)
            await problem(answer, status)
            assert secret[:20] not in answer.text
        answer = await client.post(functions, content=b"x" * 1_100_000)
        await problem(answer, 413)
    assert secret[:20] not in dev.program.output


async def test_health_and_metrics_are_there(dev: Dev) -> None:
    async with httpx.AsyncClient(base_url=dev.ready["api_url"]) as client:
        for path in ("/health", "/health/live", "/health/ready"):
            answer = await client.get(path)
            assert answer.json() == {"status": "OK"}
    (line,) = [line for line in dev.program.lines if line.strip().startswith("metrics")]
    async with httpx.AsyncClient() as client:
        text = (await client.get(line.split()[1])).text
    version = f'function_version_id="{dev.ready["function_version_id"]}"'
    for name in (
        "function_request{",
        "function_request_latency_bucket{",
        "axum_http_requests_total{",
        "axum_http_requests_pending{",
        "app_invocation_error{",
        "gateway_queue_wait_seconds_bucket{",
        "gateway_time_to_first_byte_seconds_bucket{",
        "gateway_invocation_seconds_bucket{",
    ):
        assert any(line.startswith(name) for line in text.splitlines()), name
    (counted,) = [
        line
        for line in text.splitlines()
        if line.startswith("function_request{") and version in line
    ]
    assert float(counted.rsplit(" ", 1)[1]) >= 1


async def test_the_openai_sdk_works_unchanged(dev: Dev) -> None:
    client = openai.AsyncOpenAI(
        base_url=f"{dev.ready['invocation_url']}/v1",
        api_key=dev.ready["api_key"],
        default_headers={"function-id": dev.ready["function_id"]},
    )
    async with client:
        models = await client.models.list()
        messages: Any = [{"role": "user", "content": "one two three"}]
        model = models.data[0].id
        whole = await client.chat.completions.create(model=model, messages=messages)
        assert whole.choices[0].message.content
        stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
        pieces = [event.choices[0].delta.content or "" async for event in stream if event.choices]
        assert "".join(pieces).strip() == whole.choices[0].message.content


async def test_each_event_arrives_when_it_was_sent(dev: Dev) -> None:
    gaps = []
    async with (
        dev.client() as client,
        client.stream("GET", "/sse?events=10&interval_ms=100") as answer,
    ):
        before = time.monotonic()
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                gaps.append(time.monotonic() - before)
                before = time.monotonic()
    assert len(gaps) == 10
    # Buffered anywhere, they would come in one piece at the end.
    assert sum(gap > 0.03 for gap in gaps[1:]) >= 6


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, 100_000, 20_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_any_size_arrives_whole(dev: Dev, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 50_000):
            yield body[at : at + 50_000]

    async with dev.client() as client:
        answer = await client.post("/count", content=pieces() if chunked else body)
    assert answer.json() == {"bytes": size, "sha256": hashlib.sha256(body).hexdigest()}


@pytest.mark.parametrize("announce", ["0", "1"])
async def test_a_large_answer_arrives_whole(dev: Dev, announce: str) -> None:
    size = 0
    async with (
        dev.client() as client,
        client.stream("GET", f"/huge?bytes=50000001&announce={announce}") as answer,
    ):
        assert ("content-length" in answer.headers) == (announce == "1")
        async for piece in answer.aiter_raw():
            size += len(piece)
    assert size == 50_000_001


async def test_statuses_and_heads_pass_untouched(dev: Dev) -> None:
    async with dev.client() as client:
        for status in (200, 204, 302, 304, 404, 418, 503):
            answer = await client.get(f"/status/{status}", follow_redirects=False)
            assert answer.status_code == status
            word = "fulfilled" if status < 400 else "errored"
            assert answer.headers["nvcf-status"] == word
        failed = await client.get("/fail/500")
        assert (failed.status_code, failed.json()) == (500, {"detail": "Failed as asked"})
        headed = await client.head("/status/200")
        assert (headed.status_code, headed.content) == (200, b"")
        many = await client.get("/headers/200")
        assert many.headers["x-header-199"] == "value 199"


async def test_a_real_model_answers(dev: Dev) -> None:
    code = b"import os\n\n\ndef main() -> None:\n    print(os.getcwd())\n\n\nmain()\n" * 4
    async with dev.client() as client:
        answer = await client.post("/classify", files={"file": ("what", code)})
    assert answer.status_code == 200, answer.text
    assert answer.text.startswith("python ")


async def test_nobody_answered_in_time(dev: Dev) -> None:
    before = time.monotonic()
    async with dev.client() as client:
        answer = await client.get("/slow?seconds=60", headers={"nvcf-poll-seconds": "1"})
        assert (await problem(answer, 504))["reason"] == "poll_timeout"
        assert time.monotonic() - before < 10
        assert answer.headers["nvcf-reqid"]
        idle = await client.get("/running?until=0")
    assert idle.json()["running"] == 0  # the slow request was told to stop


async def test_a_client_that_leaves_frees_the_inference_server(dev: Dev) -> None:
    async with dev.client() as client:
        leaving = asyncio.create_task(client.get("/slow?seconds=60"))  # noqa: TID251
        begun = await client.get("/running?until=1")
        assert begun.json()["running"] == 1
        leaving.cancel()
        left = time.monotonic()
        idle = await client.get("/running?until=0")
        took_s = time.monotonic() - left
    assert idle.json()["running"] == 0
    assert took_s < 1.0  # 0.2 s on a machine that has nothing else to do


@pytest.mark.parametrize("announce", ["0", "1"])
async def test_a_response_that_breaks_off_is_seen_to_break_off(dev: Dev, announce: str) -> None:
    async with dev.client() as client:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(f"/die?how=connection&after_bytes=100000&announce={announce}")


async def test_a_client_that_closes_in_a_silent_stream_frees_the_inference_server(
    dev: Dev,
) -> None:
    async with dev.client() as client:
        async with client.stream("GET", "/sse?events=2&interval_ms=60000") as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            begun = await client.get("/running?until=1")
            assert begun.json()["running"] == 1
        left = time.monotonic()
        idle = await client.get("/running?until=0")
        took_s = time.monotonic() - left
    assert idle.json()["running"] == 0
    assert took_s < 1.0
