"""A nats-server that requires a login, and logins of every kind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import time

import pytest

from queueing.nats.accounts.credentials import NatsAccounts
from queueing.nats.accounts.jwt import UserCredentials, account_of
from queueing.nats.accounts.users import WorkerUsers
from queueing.nats.embedded import Logins, make_logins
from queueing.nats.login import ConnectionOptions, Login, read_credentials
from tests.support.nats_server import NatsServer
from tests.support.queue_harness import OPTIONS, REGION, connected
from wire.subjects import worker_inbox


class GuardedNats:
    """The server, the logins of the gateway, and the issuer of worker logins."""

    def __init__(self, server: NatsServer, logins: Logins) -> None:
        self.server = server
        self.logins = logins
        jwt, _ = read_credentials(logins.gateway_credentials)
        self.users = WorkerUsers(logins.operator_seed.read_text(), account_of(jwt), [REGION])

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def gateway_options(self) -> ConnectionOptions:
        return replace(OPTIONS, login=Login(credentials_file=self.logins.gateway_credentials))

    @asynccontextmanager
    async def accounts(self) -> AsyncIterator[NatsAccounts]:
        login = Login(credentials_file=self.logins.system_credentials)
        async with connected(self.url, replace(OPTIONS, login=login)) as system:
            yield NatsAccounts(self.users, system)

    async def issue(
        self,
        version_id: str,
        instance_id: str = "i1",
        lifetime_s: float = 600.0,
        deployment_id: str = "d1",
    ) -> UserCredentials:
        async with self.accounts() as accounts:
            return await accounts.issue(version_id, deployment_id, instance_id, time() + lifetime_s)

    async def worker_options(
        self,
        version_id: str,
        instance_id: str = "i1",
        lifetime_s: float = 600.0,
        deployment_id: str = "d1",
    ) -> ConnectionOptions:
        login = await self.issue(version_id, instance_id, lifetime_s, deployment_id)
        return options_of(login, version_id, instance_id)


def options_of(
    login: UserCredentials, version_id: str, instance_id: str = "i1"
) -> ConnectionOptions:
    return replace(
        OPTIONS,
        login=Login(credentials=lambda: (login.jwt, login.seed)),
        inbox_prefix=worker_inbox(version_id, instance_id),
    )


def guarded(folder: Path) -> GuardedNats:
    logins = make_logins(folder / "logins")
    return GuardedNats(NatsServer(folder, logins.server_config.read_text()), logins)


@pytest.fixture
async def guarded_nats(tmp_path: Path) -> AsyncIterator[GuardedNats]:
    nats = guarded(tmp_path)
    await nats.server.start()
    try:
        yield nats
    finally:
        await nats.server.kill()
