"""The other gateway processes of the region: who they are, and what they hold in line.

Presence is told every two seconds, at start and at the end, so that a question knows how many
answers to wait for. Questions are core NATS requests to ``nvcf.position.<versionId>``:

    count <region> <asker> <delivered> <sequence>     how many of yours wait between the two?
    find <region> <asker> <request id>                where in line is that request of yours?

and the answer is ``<peer> <number>``. Nothing is stored in the broker.
"""

import asyncio
from collections.abc import Callable, Coroutine
from secrets import token_hex
from typing import Any

from queueing.nats.connection import Connection, Subscription
from runtime.tasks import spawn
from wire.ids import process_of
from wire.subjects import position_subject

BEAT_S = 2.0
_FORGET_AFTER_S = 7.0
_MAX_MISSES = 2
_MAX_QUESTIONS = 4096
_MAX_PEERS = 4096
_FIND_FACTOR = 4

CountWaiting = Callable[[str, int, int], int]
FindPosition = Callable[[str, str], Coroutine[Any, Any, int]]


class _Peer:
    __slots__ = ("misses", "process", "seen_at")

    def __init__(self, process: int, seen_at: float) -> None:
        self.process = process
        self.seen_at = seen_at
        self.misses = 0


class _Question:
    __slots__ = ("done", "missing", "total")

    def __init__(self, missing: set[bytes], done: asyncio.Future[None]) -> None:
        self.missing = missing
        self.total = 0
        self.done = done


class Peers:
    """One process among those of its region.

    ``count`` and ``find`` answer for this process; ``wait_s`` bounds the wait for one that is
    silent, who is then left out.
    """

    def __init__(
        self,
        connection: Connection,
        place: tuple[str, int],
        count: CountWaiting,
        find: FindPosition,
        wait_s: float,
    ) -> None:
        """``place`` is region and process number."""
        self._connection = connection
        self._region, self._process = place
        self._count = count
        self._find = find
        self._wait_s = wait_s
        self._name = token_hex(8).encode()
        self._presence = f"nvcf.presence.{self._region}".encode()
        self._inbox = connection.inbox()
        self._peers: dict[bytes, _Peer] = {}
        self._questions: dict[bytes, _Question] = {}
        self._asked = 0
        self._subscriptions: list[Subscription] = []
        self._beat_at = 0.0

    def start(self) -> None:
        """Listen; `greet` follows as soon as there is a link."""
        subscribe = self._connection.subscribe
        self._subscriptions = [
            subscribe(self._presence, self._presence_came),
            subscribe(position_subject("*").encode(), self._question_came),
            subscribe(self._inbox + b".*", self._answer_came),
        ]

    def close(self) -> None:
        """Say goodbye, so that nobody waits for our answers."""
        self._connection.publish(self._presence, self._words(b"bye"))
        for subscription in self._subscriptions:
            self._connection.unsubscribe(subscription)

    def greet(self) -> None:
        """Tell all who we are; everybody answers with the same."""
        self._connection.publish(self._presence, self._words(b"hello"), self._inbox + b".hello")

    def tick(self, now: float) -> None:
        """Call every second or so: tell that we live, forget who is silent."""
        if now - self._beat_at >= BEAT_S:
            self._beat_at = now
            self._connection.publish(self._presence, self._words(b"beat"))
        silent = [n for n, p in self._peers.items() if now - p.seen_at > _FORGET_AFTER_S]
        for name in silent:
            del self._peers[name]

    def known(self) -> int:
        """Return how many other processes there are."""
        return len(self._peers)

    async def waiting_between(self, version_id: str, delivered: int, sequence: int) -> int:
        """Return how many requests of all other processes wait between two sequences."""
        return await self._ask(
            version_id,
            b"count %b %b %d %d" % (self._region.encode(), self._name, delivered, sequence),
            set(self._peers),
            self._wait_s,
        )

    async def position_of(self, version_id: str, request_id: str) -> int:
        """Return the position of another process's request, 0 when nobody knows it."""
        process = process_of(request_id)
        return await self._ask(
            version_id,
            b"find %b %b %b" % (self._region.encode(), self._name, request_id.encode()),
            {name for name, peer in self._peers.items() if peer.process == process},
            self._wait_s * _FIND_FACTOR,
        )

    async def _ask(self, version_id: str, words: bytes, peers: set[bytes], wait_s: float) -> int:
        if not peers or len(self._questions) >= _MAX_QUESTIONS:
            return 0
        self._asked += 1
        inbox = b"%b.%d" % (self._inbox, self._asked)
        question = _Question(peers, asyncio.get_running_loop().create_future())
        self._questions[inbox] = question
        try:
            self._connection.publish(position_subject(version_id).encode(), words, inbox)
            async with asyncio.timeout(wait_s):
                await question.done
        except TimeoutError:
            self._missed(question.missing)
        finally:
            del self._questions[inbox]
        return question.total

    def _missed(self, names: set[bytes]) -> None:
        for name in names:
            if (peer := self._peers.get(name)) is not None:
                peer.misses += 1
                if peer.misses >= _MAX_MISSES:
                    # Until its next sign of life nobody waits for it again.
                    del self._peers[name]

    def _words(self, verb: bytes) -> bytes:
        return b"%b %b %d" % (verb, self._name, self._process)

    def _presence_came(
        self, _subject: bytes, reply: bytes, _headers: bytes, payload: bytes
    ) -> None:
        words = payload.split()
        if len(words) != 3 or words[1] == self._name or not words[2].isdigit():
            return
        verb, name = words[0], words[1]
        if verb == b"bye":
            self._peers.pop(name, None)
            return
        peer = self._peers.get(name)
        now = asyncio.get_running_loop().time()
        if peer is not None:
            peer.seen_at = now
        elif len(self._peers) < _MAX_PEERS:
            self._peers[name] = _Peer(int(words[2]), now)
        if verb == b"hello" and reply:
            self._connection.publish(reply, self._words(b"here"))

    def _answer_came(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        question = self._questions.get(subject)
        if question is None:
            if subject.endswith(b".hello"):
                self._presence_came(subject, b"", headers, payload)
            return
        name, _, number = payload.partition(b" ")
        if name in question.missing and number.isdigit():
            question.missing.remove(name)
            question.total += int(number)
            if (peer := self._peers.get(name)) is not None:
                peer.misses = 0
            if not question.missing and not question.done.done():
                question.done.set_result(None)

    def _question_came(self, subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        words = payload.split()
        if len(words) < 4 or words[1] != self._region.encode() or words[2] == self._name:
            return
        version_id = subject.rpartition(b".")[2].decode()
        if words[0] == b"count" and len(words) == 5:
            number = self._count(version_id, int(words[3]), int(words[4]))
            self._connection.publish(reply, b"%b %d" % (self._name, number))
        elif words[0] == b"find":
            request_id = words[3].decode()
            if process_of(request_id) == self._process:
                spawn(self._found(version_id, request_id, reply), "position-of")

    async def _found(self, version_id: str, request_id: str, reply: bytes) -> None:
        number = await self._find(version_id, request_id)
        self._connection.publish(reply, b"%b %d" % (self._name, number))
