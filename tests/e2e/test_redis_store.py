"""A gateway whose store is in Redis: what it serves, and what it goes on serving without it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.domain.model import ApiKeyKey
from tests.support.control_plane import admin_token
from tests.support.followed_store import opened
from tests.support.redis_server import RedisServer, running_redis_server
from tests.support.stack import Gateway, Stack, register
from tests.support.waiting import PATIENCE_S, until


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with running_redis_server(aof=True) as server:
        yield server


def settings(redis: RedisServer) -> dict[str, str]:
    return {"STORE__BACKEND": "redis", "REDIS__URLS": redis.url}


async def status(gateway: Gateway) -> int:
    async with gateway.client() as client:
        return (await client.post("/echo", content=b"x")).status_code


async def test_calls_go_on_without_redis_and_a_revoked_key_stops_when_it_is_back(
    stack: Stack, redis: RedisServer
) -> None:
    stack.demo = await register(redis.url)
    gateway = stack.gateway(**settings(redis))
    stack.agent()
    assert await status(gateway) == 200
    await redis.kill()
    assert await status(gateway) == 200
    await redis.start()
    async with opened(redis.url) as store:
        await store.revoke_key("demo")
    await until(lambda: status(gateway), lambda code: code == 401)
    async with opened(redis.url) as store:
        await store.delete(ApiKeyKey("demo"))


async def test_the_control_plane_begins_in_an_empty_redis_and_finds_its_store_again(
    stack: Stack, redis: RedisServer, tmp_path: Path
) -> None:
    options = {
        **settings(redis),
        "ROLES": "api,provision,invocation",
        "CONTROL__SECRETS_KEY_FILE": str(tmp_path / "master.key"),
        "PROVISION__FOLDER": str(tmp_path / "instances"),
    }
    first = stack.gateway(**options)
    token = {"authorization": f"Bearer {await admin_token(first.program, first.url)}"}
    async with httpx.AsyncClient(base_url=first.url, timeout=PATIENCE_S) as client:
        image = {"name": "kept", "inferenceUrl": "/", "containerImage": f"image:{os.getpid()}"}
        created = await client.post("/v2/nvcf/functions", headers=token, json=image)
        assert created.status_code == 200, created.text
    await redis.restart()
    second = stack.gateway(**options)
    assert "Bootstrap secret" not in second.program.output
    async with httpx.AsyncClient(base_url=second.url, timeout=PATIENCE_S) as client:
        listed = (await client.get("/v2/nvcf/functions", headers=token)).json()["functions"]
    assert [function["name"] for function in listed] == ["kept"]
