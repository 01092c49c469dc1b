r"""Messages between gateway processes over channels of one slot, so that one node has them all.

A message goes to the channel of its subject, and to that of the same subject with ``*`` as its last
token: channels of a slot know no patterns. It is

    <subject> <reply subject>\n<payload>
"""

import asyncio
from secrets import token_hex

from queueing.interface import MessageHandler, NoResponder, QueueUnavailable
from queueing.redis.commands import bulk, slot_of
from queueing.redis.connection import RedisConnection
from queueing.redis.errors import RedisError
from queueing.redis.link import Link, Reply, ReplyHandler
from queueing.redis.scripts import script
from queueing.redis.subscriber import Subscriber
from runtime.timeouts import silence_limit

_KEY = b"bus:{gateway}"
_SLOT = slot_of(_KEY)


class BusSubscription:
    """A `queueing.interface.Subscription`."""

    def __init__(self, bus: "RedisBus", subject: bytes, handler: MessageHandler) -> None:
        self._bus = bus
        self.subject = subject
        self.handler = handler

    def unsubscribe(self) -> None:
        """End it."""
        self._bus.unsubscribe(self)


class RedisBus:
    """A `queueing.interface.Bus`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._ready = asyncio.Event()
        self._subscriber = Subscriber(connection, _SLOT, self._on_ready, self._ready.clear)
        self._subscriptions: dict[bytes, list[BusSubscription]] = {}
        self._inbox = b"_INBOX.%b." % token_hex(11).encode()
        self._asked = 0
        self._questions: dict[bytes, asyncio.Future[bytes]] = {}

    def start(self) -> None:
        """Begin; the connection may be up or down."""
        self.subscribe(self._inbox + b"*", self._on_reply)
        self._subscriber.start()

    async def close(self) -> None:
        """End all subscriptions."""
        await self._subscriber.close()

    async def wait_ready(self) -> None:
        """Return as soon as messages arrive."""
        await self._ready.wait()

    async def flush(self) -> None:
        """Return when the server knows all subscriptions. Raises `QueueUnavailable`."""
        try:
            await self._subscriber.read_all(2.0)
        except RedisError as error:
            raise QueueUnavailable(str(error)) from error

    def subscribe(self, subject: bytes, handler: MessageHandler) -> BusSubscription:
        """Call ``handler`` for every message."""
        subscription = BusSubscription(self, subject, handler)
        found = self._subscriptions.get(subject)
        if found is None:
            self._subscriptions[subject] = [subscription]
            self._subscriber.subscribe(_channel(subject), self._on_message)
        else:
            found.append(subscription)
        return subscription

    def unsubscribe(self, subscription: BusSubscription) -> None:
        """Call its handler no more."""
        found = self._subscriptions.get(subscription.subject, [])
        if subscription in found:
            found.remove(subscription)
            if not found:
                del self._subscriptions[subscription.subject]
                self._subscriber.unsubscribe(_channel(subscription.subject))

    def publish(self, subject: bytes, payload: bytes) -> bool:
        """Send a message; return whether it could be sent."""
        return self._send(subject, b"", payload, lambda _reply: None)

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> bytes:
        """Publish and return the payload of the first reply."""
        self._asked += 1
        inbox = b"%b%d" % (self._inbox, self._asked)
        question: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[inbox] = question

        def sent(reply: Reply) -> None:
            if question.done():
                return
            if isinstance(reply, RedisError):
                question.set_exception(QueueUnavailable(str(reply)))
            elif reply == 0:
                question.set_exception(NoResponder(f"no responder on {subject.decode()}"))

        try:
            if not self._send(subject, inbox, payload, sent):
                raise QueueUnavailable(f"not connected: {self._connection.last_error}")
            async with silence_limit(timeout_s):
                return await question
        except TimeoutError as error:
            text = f"no response from {subject.decode()} in {timeout_s} s"
            raise QueueUnavailable(text) from error
        finally:
            del self._questions[inbox]

    def _send(self, subject: bytes, reply: bytes, payload: bytes, handler: ReplyHandler) -> bool:
        link = self._connection.link(_SLOT)
        if link is None:
            return False
        start, _, _ = subject.rpartition(b".")
        message = b"%b %b\n%b" % (subject, reply, payload)
        words = (
            b"EVALSHA",
            script("send").digest,
            b"1",
            _KEY,
            _channel(subject),
            _channel(start + b".*"),
            message,
        )
        frame = b"*%d\r\n" % len(words) + b"".join(map(bulk, words))

        def answered(result: Reply) -> None:
            if isinstance(result, RedisError):
                self._connection.note_error(link, result)
            handler(result)

        return link.send(frame, answered)

    def _on_ready(self, _link: Link) -> None:
        self._ready.set()

    def _on_message(self, channel: bytes, message: bytes) -> None:
        head, _, payload = message.partition(b"\n")
        subject, _, reply = head.partition(b" ")
        found = self._subscriptions.get(channel[len(_KEY) + 1 :], [])
        for subscription in tuple(found):
            subscription.handler(subject, reply, payload)

    def _on_reply(self, subject: bytes, _reply: bytes, payload: bytes) -> None:
        question = self._questions.get(subject)
        if question is not None and not question.done():
            question.set_result(payload)


def _channel(subject: bytes) -> bytes:
    return b"%b:%b" % (_KEY, subject)
