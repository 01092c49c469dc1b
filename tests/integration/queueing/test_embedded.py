"""The server of `gateway dev` with the queue on Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from queueing.redis.embedded import USER, EmbeddedRedis, embedded_broker


@asynccontextmanager
async def running(broker: EmbeddedRedis) -> AsyncIterator[str]:
    """Run the server until the block ends; yield its URL once it is ready."""
    process = await asyncio.create_subprocess_exec(*broker.argv, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            if broker.ready_line.encode() in line:
                break
        yield broker.url("")
    finally:
        process.kill()
        await process.communicate()


async def test_it_keeps_what_it_was_given_and_admits_the_gateway_alone(tmp_path: Path) -> None:
    broker = embedded_broker(tmp_path, "127.0.0.1", 0)
    async with running(broker) as url, Redis.from_url(url) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()
    login: dict[str, Any] = {
        "username": USER,
        "password": broker.password,
        "decode_responses": True,
    }
    async with running(broker) as url, Redis.from_url(url, **login) as client:
        await client.set("key", "value")
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    # Killed, not stopped: the append-only file has it.
    async with running(broker) as url, Redis.from_url(url, **login) as client:
        assert await client.get("key") == "value"
