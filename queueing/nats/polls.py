"""Further polls for the response to a request: gateway process to worker, and the receipt back.

NVCF's subject is ``rq_polling.<requestId>``, a request of core NATS. A poll has a token with which
its receiver responds to the client, so the workers of one version must not see those of another:
where versions have accounts of their own, subjects name the version
(`queueing.nats.accounts.users`). The receipt goes to a subject of the version too, because an inbox
of the gateway's account cannot be reached from there.
"""

import asyncio
from secrets import token_hex

from queueing.interface import NoResponder, PollHandler, QueueUnavailable
from queueing.nats.connection import (
    NatsConnection,
    NatsError,
    NoResponders,
    Subscription,
)
from queueing.nats.protocol import STATUS_NO_RESPONDERS, status_of
from runtime.timeouts import silence_limit
from wire.subjects import polled_subject, polling_subject, scoped_polling_subject


class NatsPollSubscription:
    """A worker's subscription to the polls of one request."""

    def __init__(self, connection: NatsConnection, subscription: Subscription) -> None:
        self._connection = connection
        self._subscription = subscription

    def unsubscribe(self) -> None:
        """End it."""
        self._connection.unsubscribe(self._subscription)


async def listen_for_polls(
    connection: NatsConnection, subject: bytes, on_poll: PollHandler
) -> NatsPollSubscription:
    """Call ``on_poll`` for every poll on ``subject``; return when the server knows.

    Raises `QueueUnavailable`.
    """

    def received(_subject: bytes, reply: bytes, _headers: bytes, envelope: bytes) -> None:
        def acknowledge() -> None:
            if reply:
                connection.publish(reply, b"")

        on_poll(envelope, acknowledge)

    subscription = NatsPollSubscription(connection, connection.subscribe(subject, received))
    if not connection.is_connected() or not await connection.flush():
        subscription.unsubscribe()
        raise QueueUnavailable(f"not connected: {connection.last_error}")
    return subscription


class NatsPolls:
    """A gateway process's side: sends polls and waits for their receipts."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._inbox = token_hex(11)
        self._sent = 0
        self._receipts: Subscription | None = None
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}

    async def poll(
        self, version_id: str, request_id: str, envelope: bytes, timeout_s: float
    ) -> None:
        """Send a poll; return when a worker has it. Raises `NoResponder`, `QueueUnavailable`."""
        subject = polling_subject(request_id).encode()
        try:
            await self._connection.request(subject, envelope, timeout_s)
        except NoResponders:
            await self._poll_scoped(version_id, request_id, envelope, timeout_s)
        except NatsError as error:
            raise QueueUnavailable(str(error)) from error

    async def _poll_scoped(
        self, version_id: str, request_id: str, envelope: bytes, timeout_s: float
    ) -> None:
        """Send a poll to a worker with an account of its version."""
        if self._receipts is None:
            subject = f"{polled_subject('*', self._inbox)}.*".encode()
            self._receipts = self._connection.subscribe(subject, self._on_receipt)
        self._sent += 1
        reply = polled_subject(version_id, f"{self._inbox}.{self._sent}").encode()
        receipt: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = receipt
        subject = scoped_polling_subject(version_id, request_id).encode()
        try:
            if not self._connection.publish(subject, envelope, reply):
                raise QueueUnavailable(f"not connected: {self._connection.last_error}")
            async with silence_limit(timeout_s):
                headers = await receipt
        except TimeoutError as error:
            raise QueueUnavailable(f"no receipt for a poll in {timeout_s} s") from error
        finally:
            del self._waiting[reply]
        if headers and status_of(headers) == STATUS_NO_RESPONDERS:
            raise NoResponder(f"no worker listens for polls of {request_id}")

    def _on_receipt(self, subject: bytes, _reply: bytes, headers: bytes, _payload: bytes) -> None:
        receipt = self._waiting.get(subject)
        if receipt is not None and not receipt.done():
            receipt.set_result(headers)
