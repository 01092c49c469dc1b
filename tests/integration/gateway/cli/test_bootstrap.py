"""``gateway bootstrap`` against a real store."""

import asyncio
import json

from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.auth.bootstrap import BootstrapCheck
from gateway.errors import Unauthenticated
from tests.integration.gateway.cli.filled_store import opened
from tests.integration.gateway.cli.shell import Ran
from tests.support.nats_server import NatsServer, nats_server

__all__ = ["nats_server"]


async def run(*arguments: str) -> Ran:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["bootstrap", *arguments])
    return Ran(result.exit_code, result.stdout, result.stderr)


async def is_good(server: NatsServer, secret: str) -> bool:
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


async def test_a_new_secret_is_the_only_thing_printed_and_the_only_one_that_is_good(
    nats_server: NatsServer,
) -> None:
    ran = await run("reset", "--nats-url", nats_server.url)
    assert ran.code == 0, ran
    first = ran.out.removesuffix("\n")
    assert first.startswith("nvboot-")
    assert first not in ran.err
    assert await is_good(nats_server, first)
    ran = await run("reset", "--json", "--nats-url", nats_server.url)
    second = json.loads(ran.out)["secret"]
    assert await is_good(nats_server, second)
    assert not await is_good(nats_server, first)


async def test_a_store_that_is_not_there_is_told_in_one_line_and_no_secret_shown() -> None:
    ran = await run("reset", "--nats-url", "nats://127.0.0.1:1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
