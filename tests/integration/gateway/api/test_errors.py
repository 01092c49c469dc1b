"""What is told of calls that go wrong (`docs/wire.md` §9.3)."""

import asyncio
import gzip
import io
import json
import re
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from gateway.api.limits import FREE_BYTES, MAX_ACCOUNT_HELD_BYTES, MAX_BODY_BYTES
from runtime.tasks import spawn
from tests.support.control import (
    IMAGE,
    ApiResponse,
    Client,
    ControlPlane,
    deployment_path,
    version_path,
)
from tests.support.deployments import HEALTH
from tests.support.waiting import until

LLM = {"name": "m", "llmConfig": {"uris": ["/v1"]}}
TOKENS = {"uris": ["/v1"], "tokenRateLimit": "5-S"}
ROUTED = {"uris": ["/v1"], "routingMethod": "random"}
FUNCTIONS = "/v2/nvcf/functions"
F, V = str(uuid4()), str(uuid4())


def assert_problem(told: ApiResponse, status: int, kind: str, path: str) -> None:
    assert told.status == status
    assert told.headers["content-type"] == "application/problem+json"
    assert told.body["type"] == f"urn:nvcf:problem-details:{kind}"
    assert told.body["status"] == status
    assert told.body["title"]
    assert told.body["detail"]
    assert told.body["instance"] == path
    assert told.body["requestId"] == told.headers["x-request-id"]


async def test_every_refusal_is_a_whole_problem_document(
    plane: ControlPlane, client: Client
) -> None:
    nobody = plane.stranger()
    unknown = Client(plane.session, "nvapi-" + "x" * 49)
    as_json, text = {"content-type": "application/json"}, {"content-type": "text/plain"}
    path = version_path(F, V)
    for told, status, kind, instance in (
        (await nobody.get(FUNCTIONS), 401, "unauthorized", FUNCTIONS),
        (await unknown.get(FUNCTIONS), 401, "unauthorized", FUNCTIONS),
        (await client.get("/v2/nvcf/nothing"), 404, "not-found", "/v2/nvcf/nothing"),
        (await client.get(path), 404, "not-found", path),
        (await client.put(FUNCTIONS, {}), 405, "method-not-allowed", FUNCTIONS),
        (await client.get(f"{path}?includeSecrets=maybe"), 400, "bad-request", path),
        (
            await client.get(f"{FUNCTIONS}/no-uuid/versions"),
            400,
            "bad-request",
            f"{FUNCTIONS}/no-uuid/versions",
        ),
        (
            await client.post(FUNCTIONS, data=b"{}", headers=text),
            415,
            "unsupported-media-type",
            FUNCTIONS,
        ),
        (await client.post(FUNCTIONS, data=b"{", headers=as_json), 400, "bad-request", FUNCTIONS),
    ):
        assert_problem(told, status, kind, instance)
    assert (await nobody.get(FUNCTIONS)).headers["www-authenticate"] == "Bearer"
    assert (await client.put(FUNCTIONS, {})).headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_the_instance_is_the_path_as_it_came(client: Client) -> None:
    path = f"{FUNCTIONS}/a%20b%22%C3%A9/versions"
    told = await client.get(path)
    assert_problem(told, 400, "bad-request", path)


async def test_who_may_not_do_it_learns_nothing_of_what_would_be_wrong(
    plane: ControlPlane,
) -> None:
    reader = await plane.client("acme", frozenset({"list_functions"}))
    told = await reader.post(FUNCTIONS, {"name": "-"})
    assert_problem(told, 403, "forbidden", FUNCTIONS)
    assert "register_function" in told.body["detail"]
    told = await reader.delete(version_path("no-uuid", "no-uuid"))
    assert told.status == 403
    told = await plane.stranger().post(deployment_path("no-uuid", "x"), {})
    assert told.status == 401


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"a","name":"b","inferenceUrl":"/","containerImage":"i"}',
        b'{"name":"a","inferenceUrl":"/","containerImage":"i","containerArgs":"\\ud800"}',
        b'{"name":"a","inferenceUrl":"/","containerImage":"i","inferencePort":NaN}',
        b'{"name":"a","inferenceUrl":"/","containerImage":"i","tags":'
        + b"[" * 5000
        + b"]" * 5000
        + b"}",
        b'{"name":"a","inferenceUrl":"/","containerImage":"\xff"}',
        b"[]",
        b"null",
        b"",
    ],
    ids=["twice", "surrogate", "nan", "deep", "no utf-8", "array", "null", "empty"],
)
async def test_json_that_two_parsers_would_read_differently_is_refused(
    client: Client, body: bytes
) -> None:
    told = await client.post(FUNCTIONS, data=body, headers={"content-type": "application/json"})
    assert_problem(told, 400, "bad-request", FUNCTIONS)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "-a"},
        {"name": "a" * 129},
        {"name": "a\n"},
        {"containerImage": None},
        {"helmChart": "oci://x"},
        {"helmChart": "oci://x", "containerImage": None},
        {
            "helmChart": "oci://x",
            "helmChartServiceName": "s",
            "containerImage": None,
            "models": [LLM],
        },
        {"inferencePort": 65536},
        {"maxBodyBytes": 0},
        {"cors": {}},
        {"cors": {"origins": ["https://app.example/page"]}},
        {"cors": {"origins": ["*"], "credentials": True}},
        {"cors": {"origins": ["https://app.example"] * 65}},
        {"cors": {"origins": ["*"], "credential": False}},
        {"rateLimit": {"rateLimit": "5-S", "synccheck": True}},
        {"maxBodyBytes": 1 << 53},
        {"inferenceUrl": "/h\u00e9"},
        {"inferenceUrl": "/a b"},
        {"inferenceUrl": "/a%2"},
        {"inferenceUrl": "/" * 2049},
        {"healthUri": "/h\u00e9"},
        {"health": {**HEALTH, "uri": "/h\u00e9"}},
        {"health": {**HEALTH, "uri": "/ready#now"}},
        {"health": {**HEALTH, "timeout": "P"}},
        {"health": {**HEALTH, "timeout": "PT"}},
        {"health": {**HEALTH, "timeout": "P1DT"}},
        {"health": {**HEALTH, "timeout": "PT0S"}},
        {"health": {**HEALTH, "timeout": "P0DT0.0S"}},
        {"containerImage": "x" * 2049},
        {"containerArgs": "--name \0"},
        {"containerArgs": "x" * 65_537},
        {"containerArgs": "\u20ac" * 65_536},
        {"containerEnvironment": [{"key": "A", "value": "1"}, {"key": "A", "value": "2"}]},
        {"containerEnvironment": [{"key": "A", "value": "x" * 65_537}]},
        {"containerEnvironment": [{"key": "A", "value": "\u20ac" * 65_536}]},
        {"containerEnvironment": [{"key": f"K{n}", "value": "x" * 65_000} for n in range(15)]},
        {"tags": ["a"] * 65 + [f"t{n}" for n in range(65)]},
        {"tags": ["a b"]},
        {"description": "x" * 257},
        {"rateLimit": {"rateLimit": "5-S,6-S"}},
        {"rateLimit": {"syncCheck": True}},
        {"rateLimit": {"rateLimit": "5-S", "exemptedNcaIds": ["x"], "perNcaIdRate": {"x": "1-S"}}},
        {"functionType": "LLM", "models": [LLM] * 2},
        {"functionType": "LLM", "models": [{**LLM, "version": "x" * 257}]},
        {"functionType": "LLM", "models": [{"name": "m"}]},
        {"functionType": "LLM", "models": [LLM], "containerImage": None},
        {"rateLimit": {"rateLimit": "5-S;6-M"}},
        {"rateLimit": {"perUserRate": "5-W"}},
        {"llmInvocationConfig": {"priority": {"defaultPriority": 1}}},
        {"telemetries": {"logsTelemetryId": "unknown"}},
        {"health": {"protocol": "HTTP"}},
    ],
)
async def test_a_function_that_cannot_be_is_refused(
    client: Client, change: dict[str, object]
) -> None:
    told = await client.post(FUNCTIONS, {**IMAGE, **change})
    assert_problem(told, 400, "bad-request", FUNCTIONS)


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"resources": [{"name": "r", "version": "1", "uri": "u"}]}, "resources"),
        ({"models": [{"name": "m", "version": "1", "uri": "u"}]}, "models"),
        ({"functionType": "LLM", "models": [{**LLM, "uri": "u"}]}, "models[].uri"),
        (
            {"functionType": "LLM", "models": [{"name": "m", "llmConfig": TOKENS}]},
            "models[].llmConfig.tokenRateLimit",
        ),
        (
            {"functionType": "LLM", "models": [{"name": "m", "llmConfig": ROUTED}]},
            "models[].llmConfig.routingMethod",
        ),
        (
            {
                "functionType": "LLM",
                "models": [LLM],
                "llmInvocationConfig": {
                    "priority": {"defaultPriority": 1, "perAccountPriority": {"x": 2}}
                },
            },
            "perAccountPriority",
        ),
    ],
)
async def test_what_would_have_no_effect_is_refused_by_its_name(
    client: Client, change: dict[str, object], member: str
) -> None:
    told = await client.post(FUNCTIONS, {**IMAGE, **change})
    assert_problem(told, 400, "bad-request", FUNCTIONS)
    detail = re.sub(r"\.\d+|\[\d+\]", "[]", told.body["detail"])
    assert member in detail, told.body["detail"]


async def test_empty_members_that_clients_always_send_are_taken(client: Client) -> None:
    empty = {"resources": [], "models": [], "tags": [], "containerEnvironment": [], "secrets": []}
    none = dict.fromkeys(("rateLimit", "llmInvocationConfig", "telemetries", "helmChart"))
    assert (await client.post(FUNCTIONS, {**IMAGE, **empty, **none})).status == 200


@pytest.mark.parametrize("name", ["a", "a" * 128, "0_-"])
async def test_names_at_the_bounds_are_taken(client: Client, name: str) -> None:
    assert (await client.post(FUNCTIONS, {**IMAGE, "name": name})).status == 200


async def test_null_counts_as_absent_and_port_zero_too(client: Client) -> None:
    body = {**IMAGE, "apiBodyFormat": None, "functionType": None, "tags": None, "inferencePort": 0}
    told = await client.post(FUNCTIONS, body)
    assert told.status == 200
    assert "inferencePort" not in told.body["function"]


async def test_a_rejected_value_is_never_told(client: Client) -> None:
    secret = "hunter2" * 8
    for body in (
        {**IMAGE, "secrets": [{"name": "-", "value": secret}]},
        {**IMAGE, "secrets": [{"name": "a", "value": secret * 1000}]},
        {**IMAGE, "secrets": [{"name": secret, "value": secret}, {"name": secret, "value": None}]},
        {**IMAGE, "secrets": {secret: secret}},
        {**IMAGE, "name": f"-{secret}", "inferencePort": secret},
        {**IMAGE, "functionType": secret},
    ):
        told = await client.post(FUNCTIONS, body)
        assert told.status == 400
        assert "hunter2" not in str(told.body)


async def test_bodies_that_callers_hold_back_are_bounded(
    plane: ControlPlane, client: Client
) -> None:
    kind = {"content-type": "application/json"}
    finishing = asyncio.Event()

    async def held_back() -> AsyncIterator[bytes]:
        yield bytes(MAX_BODY_BYTES - 1)
        await finishing.wait()

    count = MAX_ACCOUNT_HELD_BYTES // (MAX_BODY_BYTES - FREE_BYTES)
    calls = [
        spawn(client.post(FUNCTIONS, data=held_back(), headers=kind), "call") for _ in range(count)
    ]
    held_bytes = count * (MAX_BODY_BYTES - 1 - FREE_BYTES)
    await until(lambda: plane.api.bodies.total_bytes, lambda size: size == held_bytes)
    large = io.BytesIO(json.dumps({**IMAGE, "containerArgs": "x" * 900_000}).encode())
    told = await client.post(FUNCTIONS, data=large, headers=kind)
    assert_problem(told, 503, "too-many-bodies", FUNCTIONS)
    await client.create()
    finishing.set()
    assert {(await call).status for call in calls} == {400}
    assert plane.api.bodies.total_bytes == 0


async def test_a_body_beyond_the_bound_is_refused(client: Client) -> None:
    body = io.BytesIO(json.dumps({**IMAGE, "containerArgs": "x" * MAX_BODY_BYTES}).encode())
    told = await client.post(FUNCTIONS, data=body, headers={"content-type": "application/json"})
    assert_problem(told, 413, "content-too-large", FUNCTIONS)


async def test_the_description_of_the_api_needs_no_credential(plane: ControlPlane) -> None:
    nobody = plane.stranger()
    told = await nobody.get("/v3/openapi")
    assert told.body["openapi"] == "3.1.0"
    page = await nobody.get("/v3/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in told.body["paths"]:
        assert path.encode() in page.body
    assert (
        b"http"
        not in page.body.lower().replace(b"<!doctype html>", b"").replace(b"/html", b"")[:200]
    )
    assert (await nobody.get("/health")).body == {"status": "UP"}


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(json.dumps(IMAGE).encode(), mtime=0), 200),
        ("GZIP", gzip.compress(json.dumps(IMAGE).encode(), mtime=0), 200),
        ("identity", json.dumps(IMAGE).encode(), 200),
        ("gzip", json.dumps(IMAGE).encode(), 400),
        ("gzip", gzip.compress(b" " * 50_000_000, mtime=0), 413),
        ("snappy", json.dumps(IMAGE).encode(), 415),
        ("zstd", json.dumps(IMAGE).encode(), 415),
        ("gzip, gzip", json.dumps(IMAGE).encode(), 415),
    ],
)
async def test_a_content_coding_is_undone_or_refused(
    client: Client, coding: str, body: bytes, status: int
) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    told = await client.post(FUNCTIONS, data=body, headers=headers)
    assert told.status == status
    if status != 200:
        assert told.headers["content-type"] == "application/problem+json"
    if status == 415:
        assert told.headers["accept-encoding"] == "gzip, deflate"
