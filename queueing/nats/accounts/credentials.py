"""Credentials of workers: publishes the account of a version to the servers, then signs a user.

The nats-servers must run with the resolver ``full``, which takes accounts from a user of the system
account. Each account is published again with every issue: that is one message, and it restores the
account at a server that has lost its folder.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import orjson

from queueing.interface import CredentialsError, QueueUnavailable
from queueing.nats.accounts.document import NatsLogin
from queueing.nats.accounts.jwt import UserCredentials, account_of
from queueing.nats.accounts.users import CLAIMS_DELETE, CLAIMS_UPDATE, WORKER_API, WorkerUsers
from queueing.nats.connection import NatsConnection, NatsError
from queueing.nats.login import ConnectionOptions, Login, LoginError, read_credentials

_RESPONSE_S = 2.0


class LoginFiles(NamedTuple):
    """The files with the secrets. ``operator_seed`` may be of a signing key of the operator."""

    operator_seed: Path
    system_credentials: Path
    gateway_credentials: Path


class NatsAccounts:
    """The accounts of versions. Every method may raise `QueueUnavailable`."""

    def __init__(
        self,
        users: WorkerUsers,
        system: NatsConnection,
        random: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``system`` is logged in to the system account (`users.system_user`)."""
        self._users = users
        self._system = system
        self._random = random
        self._clock = clock

    async def issue(
        self, version_id: str, deployment_id: str, instance_id: str, expires_at: float
    ) -> UserCredentials:
        """Return new credentials for a worker, valid until ``expires_at`` in Unix seconds."""
        await publish_account(self._system, self._users.account(version_id, deployment_id))
        now = int(self._clock())
        return self._users.worker(version_id, instance_id, self._random(32), now, int(expires_at))

    async def remove(self, version_ids: Sequence[str]) -> None:
        """Delete accounts, which ends their workers' connections. Missing ones are ignored."""
        order = self._users.removal(list(version_ids), int(self._clock()))
        await _change(self._system, CLAIMS_DELETE, order)


async def publish_account(system: NatsConnection, document: str) -> None:
    """Give the servers an account's document. Raises `QueueUnavailable`."""
    await _change(system, CLAIMS_UPDATE, document)


async def _change(system: NatsConnection, subject: str, document: str) -> None:
    try:
        reply = await system.request(subject.encode(), document.encode(), _RESPONSE_S)
        response = orjson.loads(reply.payload)
    except (NatsError, orjson.JSONDecodeError) as error:
        raise QueueUnavailable(f"accounts cannot be changed: {error}") from error
    if refusal := response.get("error"):
        raise QueueUnavailable(f"accounts cannot be changed: {refusal.get('description')}")


class AccountKeys(NamedTuple):
    """What signs accounts: the operator's seed, and the public key of the gateway's account."""

    operator_seed: str
    gateway_account: str

    @classmethod
    def read(cls, files: LoginFiles) -> "AccountKeys":
        """Raises `CredentialsError`."""
        try:
            jwt, _ = read_credentials(files.gateway_credentials)
            return cls(files.operator_seed.read_text(), account_of(jwt))
        except (OSError, ValueError, LoginError) as error:
            raise CredentialsError(f"workers' NATS logins cannot be made: {error}") from error


class NatsWorkerCredentials:
    """A `queueing.interface.WorkerCredentials`, over a connection of its own."""

    def __init__(
        self,
        files: LoginFiles,
        options: ConnectionOptions,
        regions: Sequence[str],
        urls: tuple[str, ...],
    ) -> None:
        """``options`` are those of the gateway's other connections to the same servers.

        ``regions`` are all of the installation, ``urls`` are the servers' as workers reach
        them. Raises `CredentialsError`.
        """
        keys = AccountKeys.read(files)
        try:
            users = WorkerUsers(*keys, regions)
        except ValueError as error:
            raise CredentialsError(f"workers' NATS logins cannot be made: {error}") from error
        login = Login(credentials_file=files.system_credentials)
        self._system = NatsConnection(replace(options, name="gateway-accounts", login=login))
        self._accounts = NatsAccounts(users, self._system)
        self._urls = urls

    def start(self, deployed: Callable[[], Iterable[str]]) -> None:  # noqa: ARG002
        """Begin to connect to the system account; servers keep accounts over a restart."""
        self._system.start()

    async def close(self) -> None:
        """End the connection."""
        await self._system.close()

    async def issue(
        self, version_id: str, deployment_id: str, instance_id: str, expires_at: float
    ) -> Mapping[str, object]:
        """Return new credentials as members of the response to connect."""
        found = await self._accounts.issue(version_id, deployment_id, instance_id, expires_at)
        return NatsLogin(self._urls, found.jwt, found.seed, WORKER_API).members()

    async def remove(self, version_ids: Sequence[str]) -> None:
        """Delete the accounts of versions."""
        await self._accounts.remove(version_ids)
