"""Asking all servers of an installation, over a login to the system account."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import orjson

from queueing.nats.accounts.jwt import Signer
from queueing.nats.accounts.users import CLAIMS_UPDATE, SERVER_SETTINGS
from queueing.nats.connection import NatsConnection
from queueing.nats.login import ConnectionOptions, LoginError
from queueing.nats.protocol import STATUS_NO_RESPONDERS, status_of
from queueing.nats.setup.findings import judge_operator
from queueing.nats.setup.keys import InstallationKeys

CONNECT_S = 3.0
_LOOK_S = 0.05
_QUIET_S = 0.5
"""Servers respond within milliseconds; nobody says how many there are."""
_FIRST_S = 2.0
_UNTRUSTED = (
    "not sent: the server does not trust the key of the operator that signs it; give it its "
    "accounts.conf and restart it first"
)


class ServersError(Exception):
    """The servers cannot be asked. The text is one line."""


class ServerResponse(NamedTuple):
    """What one server responded, and when it arrived, in Unix seconds."""

    at_s: float
    document: dict[str, Any]


class AccountPushed(NamedTuple):
    """What one server said to the document of one account; ``error`` is empty if it took it."""

    server: str
    account: str
    error: str


@asynccontextmanager
async def connected_to(options: ConnectionOptions) -> AsyncIterator[NatsConnection]:
    """Connect while the block runs. Raises `ServersError`."""
    try:
        connection = NatsConnection(options)
    except LoginError as error:
        raise ServersError(str(error)) from error
    connection.start()
    try:
        await _wait_connected(connection, len(options.servers))
        yield connection
    finally:
        await connection.close()


async def _wait_connected(connection: NatsConnection, servers: int) -> None:
    """Return when there is a link. Raises `ServersError` when no server gives one."""
    loop = asyncio.get_running_loop()
    end = loop.time() + CONNECT_S
    while not connection.is_connected():
        # A server that refuses a login does so again: each is tried once.
        if connection.failures >= servers or loop.time() > end:
            raise ServersError(connection.last_error or "no response")
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await connection.wait_connected()


async def ask_servers(
    connection: NatsConnection, subject: bytes, payload: bytes = b""
) -> list[ServerResponse]:
    """Publish a request and return the JSON responses of all servers. Raises `ServersError`."""
    loop = asyncio.get_running_loop()
    responses: list[ServerResponse] = []
    arrived: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()

    def on_response(_to: bytes, _reply: bytes, headers: bytes, data: bytes) -> None:
        has_no_responder = bool(headers) and status_of(headers) == STATUS_NO_RESPONDERS
        arrived.put_nowait(None if has_no_responder else (time.time(), data))

    denials = _Denials(subject.decode())
    connection.add_listener(denials, denials.denied)
    inbox = connection.inbox()
    subscription = connection.subscribe(inbox, on_response)
    try:
        connection.publish(subject, payload, inbox)
        await connection.flush()
        if denials.is_denied:
            raise ServersError(f"the system login may not publish to {subject.decode()}")
        end = loop.time() + _FIRST_S
        while (left_s := end - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    response = await arrived.get()
            except TimeoutError:
                break
            if response is None:
                break
            responses.append(ServerResponse(response[0], orjson.loads(response[1])))
            end = loop.time() + _QUIET_S
    except orjson.JSONDecodeError as error:
        raise ServersError(f"a response to {subject.decode()} is not JSON") from error
    finally:
        connection.unsubscribe(subscription)
        connection.remove_listener(denials)
    return responses


async def server_settings(connection: NatsConnection) -> list[ServerResponse]:
    """Return what each server says about itself (``VARZ``). Raises `ServersError`."""
    found = await ask_servers(connection, SERVER_SETTINGS.encode())
    if not found:
        raise ServersError("it is no login to the system account")
    return [
        ServerResponse(one.at_s, one.document["data"])
        for one in found
        if isinstance(one.document.get("data"), dict)
    ]


async def push_accounts(connection: NatsConnection, keys: InstallationKeys) -> list[AccountPushed]:
    """Give the servers the documents of gateway's and system account. Raises `ServersError`.

    Nothing is sent if a server does not trust what signs them: it would store them, say that they
    are updated, and let nobody in after its next restart
    (`findings/nats_stores_untrusted_accounts.sh`).
    """
    names = {keys.account_id: "gateway", keys.system_id: "system"}
    pushed = []
    servers = [response.document for response in await server_settings(connection)]
    signer = Signer(keys.trusted_signing).public
    for finding in judge_operator(servers, signer):
        pushed += [AccountPushed(finding.subject, name, _UNTRUSTED) for name in names.values()]
    if pushed:
        return pushed
    for account, document in keys.account_documents().items():
        responses = await ask_servers(connection, CLAIMS_UPDATE.encode(), document.encode())
        if not responses:
            raise ServersError("no server takes accounts: they need the resolver 'full'")
        for response in responses:
            said = response.document
            server = str(said.get("server", {}).get("name", "?"))
            error = str((said.get("error") or {}).get("description", ""))
            pushed.append(AccountPushed(server, names[account], error))
    return pushed


class _Denials:
    """A `queueing.nats.connection.ConnectionListener` that waits for one subject."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.is_denied = False

    def connected(self) -> None:
        """Nothing: only denials matter."""

    def disconnected(self) -> None:
        """Nothing: requests fail by themselves."""

    def denied(self, subject: bytes) -> None:
        self.is_denied |= subject.decode() == self._subject
