"""Messages between gateway processes over core NATS."""

from queueing.interface import MessageHandler, NoResponder, QueueUnavailable
from queueing.nats import connection as nats
from queueing.nats.connection import NatsConnection, NatsError, NoResponders


class NatsSubscription:
    """A `queueing.interface.Subscription`."""

    def __init__(self, connection: NatsConnection, subscription: nats.Subscription) -> None:
        self._connection = connection
        self._subscription = subscription

    def unsubscribe(self) -> None:
        """End it."""
        self._connection.unsubscribe(self._subscription)


class NatsBus:
    """A `queueing.interface.Bus`."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection

    def subscribe(self, subject: bytes, handler: MessageHandler) -> NatsSubscription:
        """Call ``handler`` for every message."""
        return NatsSubscription(
            self._connection,
            self._connection.subscribe(
                subject, lambda to, reply, _headers, payload: handler(to, reply, payload)
            ),
        )

    def publish(self, subject: bytes, payload: bytes) -> bool:
        """Send a message; return whether it could be sent."""
        return self._connection.publish(subject, payload)

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> bytes:
        """Publish and return the payload of the first reply."""
        try:
            reply = await self._connection.request(subject, payload, timeout_s)
        except NoResponders as error:
            raise NoResponder(str(error)) from error
        except NatsError as error:
            raise QueueUnavailable(str(error)) from error
        return reply.payload
