"""A first start by machine: several gateways at once, with secrets that somebody made before."""

import asyncio
from base64 import b64encode
from pathlib import Path

import httpx
import pytest

from tests.support.redis_server import running_redis_server
from tests.support.stack import Gateway, Stack
from tests.support.waiting import PATIENCE_S, until

FIRST = f"nvboot-{'a' * 64}"
SECOND = f"nvboot-{'b' * 64}"


async def status(gateway: Gateway, secret: str) -> int:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as client:
        headers = {"authorization": f"Bearer {secret}"}
        return (await client.post("/v1/admin/keys", headers=headers)).status_code


@pytest.mark.parametrize("kind", ["nats", "redis"])
async def test_gateways_that_start_at_once_take_the_secrets_they_are_given_and_rotate_them(
    stack: Stack, kind: str, tmp_path: Path
) -> None:
    async with running_redis_server(aof=True) as redis:
        store = {"STORE__BACKEND": "redis", "REDIS__URLS": redis.url} if kind == "redis" else {}
        secrets = {
            "CONTROL__BOOTSTRAP_SECRET": FIRST,
            "CONTROL__SECRETS_KEY": b64encode(bytes(range(32))).decode(),
        }

        def start(secrets: dict[str, str]) -> Gateway:
            roles = {"ROLES": "api,invocation", "CONTROL__SECRETS_KEY_FILE": str(tmp_path / "none")}
            return stack.gateway(**store, **roles, **secrets)

        one, two = await asyncio.gather(*(asyncio.to_thread(start, secrets) for _ in range(2)))
        assert [await status(each, FIRST) for each in (one, two)] == [200, 200]

        file = tmp_path / "bootstrap"
        file.write_text(f"{SECOND}\n")
        file.chmod(0o600)
        del secrets["CONTROL__BOOTSTRAP_SECRET"]
        rotated = {**secrets, "CONTROL__BOOTSTRAP_SECRET_FILE": str(file)}
        three = await asyncio.to_thread(start, rotated)
        outdated = await asyncio.to_thread(start, {**secrets, "CONTROL__BOOTSTRAP_SECRET": FIRST})
        for gateway in (one, two, three, outdated):
            await until(lambda: status(gateway, SECOND), lambda code: code == 200)  # noqa: B023
            assert await status(gateway, FIRST) == 401
            assert "nvboot-" not in gateway.program.output
        assert "bootstrap.secret_replaced" in three.program.output
        assert "bootstrap.secret_outdated" in outdated.program.output
        assert not (tmp_path / "none").exists()
