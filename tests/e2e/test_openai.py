"""OpenAI's own client with nothing but a base URL and a key, and what it shows of errors."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.dev import Dev
from tests.support.waiting import PATIENCE_S

UNKNOWN = "00000000-0000-4000-8000-000000000000"
MESSAGES: Any = [{"role": "user", "content": "one two three"}]


def sdk(dev: Dev, api_key: str = "", **more: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{dev.ready['invocation_url']}/v1",
        api_key=api_key or dev.ready["api_key"],
        timeout=PATIENCE_S,
        **more,
    )


async def key_for(dev: Dev, resource: str) -> str:
    """Return a new API key that is good for one resource."""
    policy = {
        "aud": "nvidia-cloud-functions-ncp-service-id-aketm",
        "product": "nv-cloud-functions",
        "resources": [{"type": "function", "id": resource}],
        "scopes": ["invoke_function"],
    }
    body = {"description": "one function", "authorizations": {"policies": [policy]}}
    headers = {"authorization": f"Bearer {dev.ready['api_key']}"}
    async with httpx.AsyncClient(base_url=dev.ready["api_url"], headers=headers) as client:
        told = await client.post("/v1/keys", json=body)
    return str(told.raise_for_status().json()["value"])


async def refused(call: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as raised:
        await call
    return raised.value


async def test_the_functions_are_models_for_a_client_that_knows_url_and_key(dev: Dev) -> None:
    async with sdk(dev) as client:
        (model,) = [model.id async for model in client.models.list() if model.id == "demo"]
        assert (await client.models.retrieve(model)).id == model
        whole = await client.chat.completions.create(model=model, messages=MESSAGES)
        assert whole.choices[0].message.content == "one two three"
        stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        pieces = [event.choices[0].delta.content or "" async for event in stream if event.choices]
        assert "".join(pieces).strip() == "one two three"


@pytest.mark.parametrize("host", ["127.0.0.1", "llm.invocation.localhost"])
async def test_a_model_behind_the_function_is_what_the_function_is_asked_for(
    dev: Dev, host: str
) -> None:
    async with sdk(dev, default_headers={"host": host}) as client:
        for function in (dev.ready["function_id"], "demo"):
            model = f"{function}/meta/llama"
            whole = await client.chat.completions.create(model=model, messages=MESSAGES)
            assert whole.model == "meta/llama"


async def test_a_model_after_megabytes_of_messages_is_found(dev: Dev) -> None:
    content = "x" * 3_000_000
    async with sdk(dev) as client:
        whole = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": content}]
        )
    assert whole.choices[0].message.content == content


@pytest.mark.parametrize("version", ["/*", "/{function_version_id}"])
async def test_a_key_for_one_function_needs_no_name_of_it(dev: Dev, version: str) -> None:
    key = await key_for(dev, dev.ready["function_id"] + version.format(**dev.ready))
    async with sdk(dev, key) as client:
        # The function's own list, and its own model.
        model = (await client.models.list()).data[0].id
        assert model == "echo"
        whole = await client.chat.completions.create(model=model, messages=MESSAGES)
        assert whole.choices[0].message.content == "one two three"
    async with httpx.AsyncClient(base_url=dev.ready["invocation_url"]) as client:
        headers = {"authorization": f"Bearer {key}"}
        answer = await client.post("/echo?x=1", content=b"hello", headers=headers)
    assert (answer.status_code, answer.content) == (200, b"hello")


async def test_a_path_names_the_function(dev: Dev) -> None:
    headers = {"authorization": f"Bearer {dev.ready['api_key']}"}
    async with httpx.AsyncClient(base_url=dev.ready["invocation_url"], headers=headers) as client:
        for name in ("demo", dev.ready["function_id"]):
            answer = await client.get(f"/f/{name}/reflect/a%2Fb?x=1")
            assert answer.json()["raw_path"] == "/reflect/a%2Fb"
            assert answer.json()["query"] == "x=1"
        assert (await client.get("/f/nothing/reflect")).status_code == 404
        answer = await client.get("/f/demo/status/307")
        assert (answer.status_code, answer.headers["location"]) == (307, "/f/demo/health")


async def test_the_reason_of_a_refusal_is_in_the_exceptions_text(dev: Dev) -> None:
    by_id = {"function-id": UNKNOWN}
    async with sdk(dev, max_retries=0) as client:
        error = await refused(client.chat.completions.create(model="nothing", messages=MESSAGES))
        assert isinstance(error, openai.NotFoundError)
        assert error.code == "model_not_found"
        assert "names no function" in str(error)
        error = await refused(client.models.list(extra_headers=by_id))
        assert UNKNOWN in error.message
        assert error.request_id
    async with sdk(dev, "nvapi-wrong", max_retries=0) as client:
        error = await refused(client.models.list(extra_headers=by_id))
        assert isinstance(error, openai.AuthenticationError)
        assert "no valid credential" in error.message
        assert error.type == "authentication_error"


class Counting(httpx.AsyncHTTPTransport):
    """Counts the requests that are sent."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return await super().handle_async_request(request)


@pytest.fixture
async def counting() -> AsyncIterator[Counting]:
    async with Counting() as transport:
        yield transport


async def test_a_call_past_its_window_is_not_sent_again(dev: Dev, counting: Counting) -> None:
    headers = {"function-id": dev.ready["function_id"], "nvcf-poll-seconds": "1"}
    http = httpx.AsyncClient(transport=counting)
    async with sdk(dev, http_client=http, default_headers=headers, max_retries=2) as client:
        error = await refused(client.get("../slow?seconds=600", cast_to=object))
    assert error.status_code == 504
    assert error.code == "poll_timeout"
    assert "window of 1 s" in error.message
    assert "was with a worker" in error.message
    assert counting.requests == 1


async def test_every_answer_has_its_id_under_both_names(dev: Dev) -> None:
    url, key = dev.ready["invocation_url"], f"Bearer {dev.ready['api_key']}"
    calls: list[tuple[str, str, dict[str, str], int]] = [
        ("GET", "/health", {}, 200),
        ("GET", "/nothing", {}, 404),
        ("GET", "/v1/models", {"authorization": key}, 200),
        ("GET", "/v1/models", {}, 401),
        ("GET", "/v2/nvcf/functions", {"authorization": key}, 200),
        ("GET", "/v2/nvcf/functions", {}, 401),
        ("PUT", "/v2/nvcf/functions", {"authorization": key}, 405),
        ("GET", "/f/demo/health", {"authorization": key, "x-request-id": "mine"}, 200),
        ("GET", "/f/demo/status/404", {"authorization": key}, 404),
        ("GET", "/f/demo/health", {"authorization": key, "nvcf-poll-seconds": "x"}, 400),
        ("GET", "/", {"host": "not a host"}, 400),
    ]
    async with httpx.AsyncClient(base_url=url) as client:
        for method, path, headers, status in calls:
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == status, (path, answer.text)
            assert len(answer.headers["nvcf-reqid"]) == 36
            assert answer.headers["x-request-id"] == answer.headers["nvcf-reqid"]
