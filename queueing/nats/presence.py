"""Which workers of a version are connected: those that listen to its cancels, as servers say.

Every account may ask the servers about its own connections; a user of the system account, if it is
permitted to, about those of any. Each server of a cluster responds for itself, and nothing says how
many there are: a server that responds late leaves its workers out once.
"""

import asyncio

import orjson

from queueing.interface import QueueUnavailable, WorkerConnection
from queueing.nats.connection import NatsConnection, NatsError
from runtime.timeouts import silence_limit
from wire.subjects import cancel_subject

OWN_ACCOUNT = "PING"
"""In place of an account's public key: that of the user who asks."""
_SERVERS_S = 0.5
"""How long the servers of a cluster may take."""
_RESPONSE_S = 2.0
_MAX_WORKERS = 1024
"""Of one version at one server; more are not seen."""


async def listening_workers(
    connection: NatsConnection, account: str, version_id: str
) -> list[WorkerConnection]:
    """Return the connections of the version's workers to ``account``.

    Raises `QueueUnavailable` if no server responds.
    """
    asked = {
        "filter_subject": cancel_subject(version_id),
        "subscriptions": True,
        "limit": _MAX_WORKERS,
    }
    replies: list[bytes] = []
    first = asyncio.Event()

    def on_reply(_subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        replies.append(payload)
        first.set()

    inbox = connection.inbox()
    subscription = connection.subscribe(inbox, on_reply)
    try:
        connection.publish(f"$SYS.REQ.ACCOUNT.{account}.CONNZ".encode(), orjson.dumps(asked), inbox)
        async with silence_limit(_RESPONSE_S):
            await first.wait()
        if connection.is_clustered():
            await asyncio.sleep(_SERVERS_S)
        return [found for reply in replies for found in _read(reply)]
    except TimeoutError as error:
        raise QueueUnavailable("no server says who is connected") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise QueueUnavailable("the servers do not say who is connected") from error
    finally:
        connection.unsubscribe(subscription)


async def disconnect(system: NatsConnection, worker: WorkerConnection) -> None:
    """End a connection. Raises `QueueUnavailable`."""
    order = orjson.dumps({"cid": worker.number})
    try:
        await system.request(f"$SYS.REQ.SERVER.{worker.server}.KICK".encode(), order, _RESPONSE_S)
    except NatsError as error:
        raise QueueUnavailable(f"a worker cannot be disconnected: {error}") from error


def _read(reply: bytes) -> list[WorkerConnection]:
    """Return the connections in one server's reply; it has no payload if nobody may respond."""
    if not reply:
        return []
    document = orjson.loads(reply)
    server = document["server"]["id"]
    return [
        WorkerConnection(one.get("name", ""), server, one["cid"])
        for one in document["data"]["connections"] or ()
    ]
