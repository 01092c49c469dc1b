"""Workers' logins to NATS, from the files that an operator provides."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gateway.domain.model import Instance
from queueing.nats.accounts.claims import NatsAccounts
from queueing.nats.accounts.jwt import Credentials, account_of
from queueing.nats.accounts.users import WorkerUsers
from queueing.nats.connection import Connection
from queueing.nats.login import ConnectionOptions, Login, read_credentials


class LoginFiles(NamedTuple):
    """Where the secrets are. ``operator_seed`` may be that of a signing key of the operator."""

    operator_seed: Path
    system_credentials: Path
    gateway_credentials: Path


class WorkerLogins:
    """Makes logins, over a connection of its own to the system account.

    A `gateway.api.routes.workers.NatsLogins`. `start` it first, `close` it last.
    """

    def __init__(self, files: LoginFiles, options: ConnectionOptions, region: str) -> None:
        """``options`` are those of the gateway's other connections to the same servers.

        Raises OSError, ValueError and `queueing.nats.login.LoginError` for files that are none.
        """
        jwt, _ = read_credentials(files.gateway_credentials)
        seed = files.operator_seed.read_text()
        login = Login(credentials_file=files.system_credentials)
        self._system = Connection(replace(options, name="gateway-accounts", login=login))
        self._accounts = NatsAccounts(WorkerUsers(seed, account_of(jwt), region), self._system)

    def start(self) -> None:
        """Begin to connect."""
        self._system.start()

    async def close(self) -> None:
        """End the connection."""
        await self._system.close()

    async def issue(self, instance: Instance, expires_at: float) -> Credentials:
        """Return new credentials for its worker. Raises `queueing.interface.QueueUnavailable`."""
        return await self._accounts.issue(instance, expires_at)

    async def remove(self, version_ids: Sequence[str]) -> None:
        """Forget accounts of versions. Raises `queueing.interface.QueueUnavailable`."""
        await self._accounts.remove(version_ids)
