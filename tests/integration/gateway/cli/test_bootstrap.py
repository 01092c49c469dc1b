"""``gateway bootstrap`` with a real store."""

import asyncio
import json

from typer.testing import CliRunner

from gateway.auth.bootstrap import BootstrapCheck
from gateway.cli.program import app
from gateway.errors import Unauthenticated
from tests.integration.gateway.cli.filled_store import opened
from tests.integration.gateway.cli.shell import Ran
from tests.support.nats_server import NatsServer, nats_server

__all__ = ["nats_server"]


async def run(*arguments: str) -> Ran:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["bootstrap", *arguments])
    return Ran(result.exit_code, result.stdout, result.stderr)


async def is_valid(server: NatsServer, secret: str) -> bool:
    check = BootstrapCheck()
    async with opened(server) as filled:
        found = await filled.store.get_raw("meta", "bootstrap")
    assert found is not None
    assert secret.encode() not in found[0]
    check.apply("bootstrap", found[0])
    try:
        check.principal_of(secret.encode())
    except Unauthenticated:
        return False
    return True


async def test_only_the_new_secret_is_printed_and_only_it_is_valid(
    nats_server: NatsServer,
) -> None:
    ran = await run("reset", "--nats-url", nats_server.url)
    assert ran.code == 0, ran
    first = ran.out.removesuffix("\n")
    assert first.startswith("nvboot-")
    assert first not in ran.err
    assert await is_valid(nats_server, first)
    ran = await run("reset", "--json", "--nats-url", nats_server.url)
    second = json.loads(ran.out)["secret"]
    assert await is_valid(nats_server, second)
    assert not await is_valid(nats_server, first)


async def test_an_unreachable_store_is_reported_in_one_line_without_a_secret() -> None:
    ran = await run("reset", "--nats-url", "nats://127.0.0.1:1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
