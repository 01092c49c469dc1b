"""The other gateway processes of a region: their presence, and their share of each queue.

Every process announces itself every two seconds, at start and at the end, so that a process knows
how many responses to wait for. It asks the others with a core NATS request to
``nvcf.position.<versionId>``:

    count <region> <asker> <delivered> <sequence>     your waiting requests between the two

and each responds ``<peer> <number>``. Nothing is stored in the broker.
"""

import asyncio
from collections.abc import Callable
from secrets import token_hex
from typing import NamedTuple

from queueing.nats.connection import NatsConnection, Subscription
from runtime.timeouts import silence_limit
from wire.subjects import position_subject, presence_subject

ANNOUNCEMENT_S = 2.0
_FORGET_AFTER_S = 7.0
_MAX_MISSES = 2
_MAX_QUESTIONS = 4096
_MAX_PEERS = 4096

CountBetween = Callable[[str, int, int], int]
"""Returns how many requests of a version lie between two sequences."""


class ProcessRef(NamedTuple):
    """One gateway process: its region, and its number in the request ids that it makes."""

    region: str
    process: int


class _Peer:
    __slots__ = ("heard_at", "misses")

    def __init__(self, heard_at: float) -> None:
        self.heard_at = heard_at
        self.misses = 0


class _Question:
    __slots__ = ("done", "missing", "total")

    def __init__(self, missing: set[bytes], done: asyncio.Future[None]) -> None:
        self.missing = missing
        self.total = 0
        self.done = done


class Peers:
    """This process among those of its region.

    ``count`` computes the response of this process. ``wait_s`` bounds the wait for the others; one
    that does not respond counts as 0, and after two misses it is forgotten until it announces
    itself again.
    """

    def __init__(
        self, connection: NatsConnection, own: ProcessRef, count: CountBetween, wait_s: float
    ) -> None:
        self._connection = connection
        self._region = own.region.encode()
        self._process = own.process
        self._count = count
        self._wait_s = wait_s
        self._name = token_hex(8).encode()
        self._presence = presence_subject(own.region).encode()
        self._inbox = connection.inbox()
        self._peers: dict[bytes, _Peer] = {}
        self._questions: dict[bytes, _Question] = {}
        self._asked = 0
        self._subscriptions: list[Subscription] = []
        self._announced_at = 0.0

    def __len__(self) -> int:
        """Return how many other processes are known."""
        return len(self._peers)

    def start(self) -> None:
        """Subscribe; call `greet` as soon as there is a connection."""
        subscribe = self._connection.subscribe
        self._subscriptions = [
            subscribe(self._presence, self._on_presence),
            subscribe(position_subject("*").encode(), self._on_question),
            subscribe(self._inbox + b".*", self._on_response),
        ]

    def close(self) -> None:
        """Announce the end, so that no process waits for our responses, and unsubscribe."""
        self._connection.publish(self._presence, self._announcement(b"bye"))
        for subscription in self._subscriptions:
            self._connection.unsubscribe(subscription)

    def greet(self) -> None:
        """Announce this process; all others respond with their own announcement."""
        self._connection.publish(
            self._presence, self._announcement(b"hello"), self._inbox + b".hello"
        )

    def tick(self, now: float) -> None:
        """Announce this process when it is time, and forget silent ones. Call every second or so.

        ``now`` is loop time.
        """
        if now - self._announced_at >= ANNOUNCEMENT_S:
            self._announced_at = now
            self._connection.publish(self._presence, self._announcement(b"beat"))
        silent = [
            name for name, peer in self._peers.items() if now - peer.heard_at > _FORGET_AFTER_S
        ]
        for name in silent:
            del self._peers[name]

    async def count_between(self, version_id: str, delivered: int, sequence: int) -> int:
        """Return how many requests of all other processes lie between two sequences."""
        peers = set(self._peers)
        if not peers or len(self._questions) >= _MAX_QUESTIONS:
            return 0
        self._asked += 1
        inbox = b"%b.%d" % (self._inbox, self._asked)
        payload = b"count %b %b %d %d" % (self._region, self._name, delivered, sequence)
        question = _Question(peers, asyncio.get_running_loop().create_future())
        self._questions[inbox] = question
        try:
            self._connection.publish(position_subject(version_id).encode(), payload, inbox)
            async with silence_limit(self._wait_s):
                await question.done
        except TimeoutError:
            self._count_misses(question.missing)
        finally:
            del self._questions[inbox]
        return question.total

    def _count_misses(self, names: set[bytes]) -> None:
        for name in names:
            if (peer := self._peers.get(name)) is not None:
                peer.misses += 1
                if peer.misses >= _MAX_MISSES:
                    del self._peers[name]

    def _announcement(self, kind: bytes) -> bytes:
        return b"%b %b %d" % (kind, self._name, self._process)

    def _on_presence(self, _subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        parts = payload.split()
        if len(parts) != 3 or parts[1] == self._name or not parts[2].isdigit():
            return
        kind, name, _process = parts
        if kind == b"bye":
            self._peers.pop(name, None)
            return
        peer = self._peers.get(name)
        now = asyncio.get_running_loop().time()
        if peer is not None:
            peer.heard_at = now
        elif len(self._peers) < _MAX_PEERS:
            self._peers[name] = _Peer(now)
        if kind == b"hello" and reply:
            self._connection.publish(reply, self._announcement(b"here"))

    def _on_response(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        question = self._questions.get(subject)
        if question is None:
            if subject.endswith(b".hello"):
                self._on_presence(subject, b"", headers, payload)
            return
        name, _, number = payload.partition(b" ")
        if name in question.missing and number.isdigit():
            question.missing.remove(name)
            question.total += int(number)
            if (peer := self._peers.get(name)) is not None:
                peer.misses = 0
            if not question.missing and not question.done.done():
                question.done.set_result(None)

    def _on_question(self, subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        parts = payload.split()
        if len(parts) != 5 or parts[0] != b"count":
            return
        if parts[1] != self._region or parts[2] == self._name:
            return
        version_id = subject.rpartition(b".")[2].decode()
        number = self._count(version_id, int(parts[3]), int(parts[4]))
        self._connection.publish(reply, b"%b %d" % (self._name, number))
