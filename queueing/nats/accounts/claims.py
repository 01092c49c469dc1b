"""Gives workers their NATS login: makes their version's account known, then signs the user.

The nats-servers must run with the resolver ``full``, which takes accounts from whoever is logged in
to the system account. What they know already they are told again: it is one message, and a server
that has lost its folder is put right by it.
"""

import os
import time
from collections.abc import Callable, Sequence

import orjson

from gateway.domain.model import Instance
from queueing.interface import QueueUnavailable
from queueing.nats.accounts.jwt import Credentials
from queueing.nats.accounts.users import CLAIMS_DELETE, CLAIMS_UPDATE, WorkerUsers
from queueing.nats.connection import Connection, NatsError

_ANSWER_S = 2.0


class NatsAccounts:
    """The accounts of versions. Every call may raise `QueueUnavailable`."""

    def __init__(
        self,
        users: WorkerUsers,
        system: Connection,
        random: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``system`` is logged in to the system account (`users.system_user`)."""
        self._users = users
        self._system = system
        self._random = random
        self._clock = clock

    async def issue(self, instance: Instance, expires_at: float) -> Credentials:
        """Return new credentials for its worker, good until ``expires_at``, Unix seconds."""
        version_id = instance.version_id
        document = self._users.account(version_id, instance.deployment_id)
        await self._order(CLAIMS_UPDATE, document)
        now = int(self._clock())
        return self._users.worker(
            version_id, instance.instance_id, self._random(32), now, int(expires_at)
        )

    async def remove(self, version_ids: Sequence[str]) -> None:
        """Forget accounts; their workers lose their connections. No error if there are none."""
        order = self._users.removal(list(version_ids), int(self._clock()))
        await self._order(CLAIMS_DELETE, order)

    async def _order(self, subject: str, document: str) -> None:
        try:
            reply = await self._system.request(subject.encode(), document.encode(), _ANSWER_S)
            answer = orjson.loads(reply.payload)
        except (NatsError, orjson.JSONDecodeError) as error:
            raise QueueUnavailable(f"accounts cannot be changed: {error}") from error
        if refusal := answer.get("error"):
            raise QueueUnavailable(f"accounts cannot be changed: {refusal.get('description')}")
