"""Further polls for the response to a request: gateway process to worker.

A poll goes to a channel of the version's queue, which no other version's worker may subscribe to.
The server says how many it handed the message to, and that is the receipt.
"""

from queueing.interface import NoResponder, PollHandler, QueueUnavailable
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import RedisError
from queueing.redis.keys import QueueKeys
from queueing.redis.subscriber import Subscriber

_CALL_S = 3.0


class RedisPollSubscription:
    """A worker's subscription to the polls of one request."""

    def __init__(self, subscriber: Subscriber, channel: bytes) -> None:
        self._subscriber = subscriber
        self._channel = channel

    def unsubscribe(self) -> None:
        """End it."""
        self._subscriber.unsubscribe(self._channel)


async def listen_for_polls(
    subscriber: Subscriber, channel: bytes, on_poll: PollHandler
) -> RedisPollSubscription:
    """Call ``on_poll`` for every poll in ``channel``; return when the server knows.

    Raises `QueueUnavailable`.
    """

    def acknowledge() -> None:
        """The server has told the gateway process already."""

    subscription = RedisPollSubscription(subscriber, channel)
    subscriber.subscribe(channel, lambda _channel, envelope: on_poll(envelope, acknowledge))
    try:
        await subscriber.read_all(_CALL_S)
    except RedisError as error:
        subscription.unsubscribe()
        raise QueueUnavailable(str(error)) from error
    return subscription


class RedisPolls:
    """A gateway process's side: sends polls."""

    def __init__(self, connection: RedisConnection, region: str) -> None:
        self._connection = connection
        self._region = region

    async def poll(
        self, version_id: str, request_id: str, envelope: bytes, timeout_s: float
    ) -> None:
        """Send a poll; return when a worker has it. Raises `NoResponder`, `QueueUnavailable`."""
        keys = QueueKeys.of(self._region, version_id)
        link = self._connection.link(keys.slot)
        if link is None:
            raise QueueUnavailable(f"not connected: {self._connection.last_error}")
        channel = keys.polling_channel(request_id.encode())
        try:
            listeners = await link.call(b"SPUBLISH", channel, envelope, timeout_s=timeout_s)
        except RedisError as error:
            self._connection.note_error(link, error)
            raise QueueUnavailable(str(error)) from error
        if not listeners:
            raise NoResponder(f"no worker listens for polls of {request_id}")
