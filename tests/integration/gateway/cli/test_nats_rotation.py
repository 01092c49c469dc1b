"""The rotations of docs/nats.md, step by step, at a cluster with a gateway and its worker.

What the document says is copied to servers and gateways is there already: they run from the
installation's folder.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from queueing.nats.accounts.credentials import NatsAccounts
from queueing.nats.accounts.users import WorkerUsers
from queueing.nats.login import ConnectionOptions, Login, read_credentials
from queueing.nats.setup.servers import ServersError, connected_to
from runtime.tasks import spawn
from tests.support.nats_setup import Platform, SetUpNats, run_command, set_up_nats
from tests.support.waiting import until

# Each starts servers, a gateway and its function, and restarts the gateway.
pytestmark = pytest.mark.timeout(300)


class Running:
    """A cluster with a gateway whose function has answered a call."""

    def __init__(self, nats: SetUpNats, platform: Platform) -> None:
        self.nats = nats
        self.platform = platform

    async def restart_gateways(self) -> None:
        await asyncio.to_thread(self.platform.restart)

    async def rotate(self, *arguments: str) -> None:
        await asyncio.to_thread(self.nats.rotate, *arguments)

    async def push(self) -> None:
        await asyncio.to_thread(self.nats.push)

    async def answers(self) -> None:
        await asyncio.to_thread(self.platform.until_answered)

    @asynccontextmanager
    async def calls(self) -> AsyncIterator[list[int]]:
        """Call the function all the time while the block runs; yield the statuses."""
        statuses: list[int] = []
        is_over = asyncio.Event()

        async def call() -> None:
            while not is_over.is_set():
                # Longer than a lease: what was sent to a connection that ends comes again then.
                statuses.append(await asyncio.to_thread(self.platform.call, 60))

        calling = spawn(call(), "calls")
        try:
            yield statuses
        finally:
            is_over.set()
            await calling

    async def ends_clean(self) -> None:
        """A call is answered, a further worker is let in, and a check finds nothing."""
        await self.answers()
        assert await self.nats.check(NATS__CALLOUT="true") == []


@asynccontextmanager
async def running(folder: Path, nodes: int, *options: str) -> AsyncIterator[Running]:
    async with set_up_nats(folder / "nats", *options, nodes=nodes) as nats:
        await nats.whole()
        platform = Platform(nats, folder)
        try:
            await asyncio.to_thread(platform.start)
            await asyncio.to_thread(platform.deploy)
            yield Running(nats, platform)
        finally:
            await asyncio.to_thread(platform.close)


def held(options: ConnectionOptions) -> ConnectionOptions:
    """Return ``options`` with today's login, whatever becomes of its file."""
    assert options.login.credentials_file is not None
    login = read_credentials(options.login.credentials_file)
    return replace(options, login=Login(credentials=lambda: login))


async def is_let_in(options: ConnectionOptions) -> bool:
    try:
        async with connected_to(options):
            return True
    except ServersError:
        return False


@pytest.mark.parametrize("key", ["gateway-user", "account-signing"])
async def test_the_gateways_login_and_the_key_that_signs_it(tmp_path: Path, key: str) -> None:
    async with running(tmp_path, 1) as system:
        nats = system.nats
        old = held(nats.gateway_options)
        async with connected_to(old) as stolen:
            await system.rotate(key)
            await system.push()
            assert await is_let_in(old)
            assert await is_let_in(nats.gateway_options)
            await system.restart_gateways()
            await system.rotate(key, "--finish")
            await system.push()
            # Its connection is ended, and not made again.
            await until(stolen.is_connected, lambda is_up: not is_up)
            assert not await is_let_in(old)
        assert await is_let_in(nats.gateway_options)
        await nats.servers[0].stop()
        await nats.servers[0].start()
        assert not await is_let_in(old)
        await system.ends_clean()


async def test_the_login_to_the_system_account(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as system:
        old = held(system.nats.system_options)
        await system.rotate("system-user")
        assert await is_let_in(old)
        await system.restart_gateways()
        await system.rotate("system-user", "--finish")
        await system.push()
        # Shorter than a lease: the gateway's account is what it was, and pulls that wait are too.
        assert await asyncio.to_thread(system.platform.call, 15) == 200
        assert not await is_let_in(old)
        await system.ends_clean()


@pytest.mark.parametrize("key", ["operator-signing", "operator"])
async def test_the_operators_keys_at_a_cluster(tmp_path: Path, key: str) -> None:
    async with running(tmp_path, 3, "--tls") as system:
        nats, agents = system.nats, system.platform.agents()
        stolen = nats.installation.read_keys().operator_signing
        assert await makes_logins(nats, stolen)
        await system.rotate(key)
        await nats.restart_each()
        await system.answers()
        await system.restart_gateways()
        async with system.calls() as statuses:
            await system.rotate(key, "--finish")
            await system.push()
            await nats.restart_each()
        assert set(statuses) == {200}, statuses
        assert not await makes_logins(nats, stolen)
        await system.ends_clean()
        # The worker went on, and got a new login.
        assert system.platform.agents() == agents
        assert len(agents) == 1


async def test_accounts_are_not_sent_to_a_server_that_does_not_trust_their_signature(
    tmp_path: Path,
) -> None:
    async with set_up_nats(tmp_path / "nats") as nats:
        (server,) = nats.servers
        for end in ((), ("--finish",)):
            await asyncio.to_thread(nats.rotate, "operator", *end)
        refused = await asyncio.to_thread(run_command, "nats", "push", nats.folder)
        assert (refused[0], "nats-1" in refused[1], "not sent" in refused[1]) == (1, True, True)
        await server.stop()
        await server.start()
        await asyncio.to_thread(nats.push)
        assert await nats.check() == []


async def makes_logins(nats: SetUpNats, operator_seed: str) -> bool:
    """Whether a worker is let in with a login of an account that ``operator_seed`` has signed."""
    account = nats.installation.read_keys().account_id
    async with connected_to(nats.system_options) as connection:
        accounts = NatsAccounts(WorkerUsers(operator_seed, account, ["local"]), connection)
        # Servers take any document, and look at its signature when somebody logs in.
        login = await accounts.issue("stolen", "d", "i", time() + 60)
        own = Login(credentials=lambda: (login.jwt, login.seed))
        return await is_let_in(replace(nats.gateway_options, login=own))


async def test_certificates_are_renewed_without_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, 3, "--tls") as system:
        nats = system.nats
        before = [(server / "tls.crt").read_text() for server in nats.installation.servers]
        await system.rotate("certificates")
        after = [(server / "tls.crt").read_text() for server in nats.installation.servers]
        assert not set(before) & set(after)
        for server in nats.servers:
            server.reload()
            await server.logged("Reloaded server configuration")
        await system.ends_clean()


async def test_a_new_installation_takes_over_what_the_store_held(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as old, set_up_nats(tmp_path / "new") as new:
        dump = str(tmp_path / "all.jsonl")
        old.platform.use(old.nats, at_stop="end")
        await old.restart_gateways()
        await asyncio.to_thread(old.platform.stop)
        for command, nats in (("export", old.nats), ("import", new)):
            await asyncio.to_thread(
                old.platform.command, "store", command, dump, "--config", str(nats.settings)
            )
        old.platform.use(new)
        await asyncio.to_thread(old.platform.start)
        await asyncio.to_thread(old.platform.until_answered)
        assert await new.check() == []
