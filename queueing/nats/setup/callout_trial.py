"""Whether workers of NVCF would be let in, seen and disconnected (``nats.callout``), by trying it.

A client with a token that nobody knows logs in at each server. It is refused either way: what
counts is that the servers ask the callout's account about it, to which this process logs in as the
gateways do. This login is also the one that is looked for, and ended, in the end.
"""

import time
from contextlib import suppress
from dataclasses import replace

from queueing.interface import QueueUnavailable, WorkerConnection
from queueing.nats import presence
from queueing.nats.accounts.callout_documents import (
    CALLOUT_SUBJECT,
    CalloutAccount,
    read_callout,
)
from queueing.nats.accounts.credentials import publish_account
from queueing.nats.accounts.jwt import account_of
from queueing.nats.accounts.users import CONNECTIONS, KICK
from queueing.nats.connection import NatsConnection
from queueing.nats.login import ConnectionOptions, Login, parse_server
from queueing.nats.setup.findings import Finding, error
from queueing.nats.setup.servers import ServersError, connected_to
from runtime.ids import new_uuid
from wire.subjects import cancel_subject


class CalloutTrial:
    """One trial. ``system`` is logged in to the system account."""

    def __init__(
        self, system: NatsConnection, callout: CalloutAccount, options: ConnectionOptions
    ) -> None:
        """``options`` are those of the gateway, for servers that can be reached."""
        self._system = system
        self._callout = callout
        own = callout.login()
        self._account = account_of(own.jwt)
        self._options = replace(options, login=Login(credentials=lambda: (own.jwt, own.seed)))

    async def run(self) -> list[Finding]:
        """Return what does not work, except what keeps our own workers out too.

        The callout's account stays: it is that of the gateways, who publish the same.
        """
        findings: list[Finding] = []
        with suppress(QueueUnavailable, ServersError):
            await publish_account(self._system, self._callout.document())
            silent = [url for url in self._options.servers if not await self._is_asked(url)]
            findings += [
                error(
                    str(parse_server(url)),
                    "workers of NVIDIA's are not let in: the gateways are not asked about them",
                    "add to its configuration the line that 'gateway config nats-callout' prints "
                    "(accounts.conf of 'gateway nats init' has it), and reload it",
                )
                for url in silent
            ]
            findings += await self._look_and_kick()
        return findings

    async def _is_asked(self, url: str) -> bool:
        """Return whether the server asks about a client with a token."""
        token = f"check {new_uuid()}"
        asked: list[bytes] = []

        def on_request(_subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
            with suppress(ValueError):
                request = read_callout(payload)
                # Gateways that run respond too, to every client.
                if request.token == token:
                    asked.append(reply)
                    connection.publish(reply, self._callout.refuse(request, int(time.time())))

        # At the same server: others hear of the subscription later.
        options = replace(self._options, servers=(url,))
        async with connected_to(options) as connection:
            connection.subscribe(CALLOUT_SUBJECT, on_request)
            await connection.flush()
            with suppress(ServersError):
                async with connected_to(replace(options, login=Login(token=token))):
                    pass
            await connection.flush()
        return bool(asked)

    async def _look_and_kick(self) -> list[Finding]:
        """See and end a connection as the gateways do with those of workers."""
        version_id = new_uuid()
        lacking: list[tuple[str, str]] = []
        async with connected_to(self._options) as connection:
            connection.subscribe(cancel_subject(version_id).encode(), lambda *_: None)
            await connection.flush()
            info = connection.server_info
            own = WorkerConnection(self._options.name, info["server_id"], info["client_id"])
            try:
                found = await presence.listening_workers(self._system, self._account, version_id)
            except QueueUnavailable:
                found = []
            if own not in found:
                lacking.append((CONNECTIONS, "workers of NVIDIA's are not seen and not used"))
            try:
                await presence.disconnect(self._system, own)
            except QueueUnavailable:
                lacking.append((KICK, "workers of NVIDIA's whose token is revoked go on"))
        return [
            error(
                "nats.system_credentials_file",
                f"the login may not publish to {subject}: {effect}",
                "make a new one ('gateway nats rotate DIR system-user'): those of earlier releases "
                "lack it",
            )
            for subject, effect in lacking
        ]
