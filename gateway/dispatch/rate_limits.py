"""Counts the calls of versions with a rate limit, together with all other gateway processes.

A call takes what it needs from the stock of this process. If that is used up, it waits for the next
claim of its bucket, together with all calls that came meanwhile: a bucket has at most one claim
under way. What is refused is refused at once, because the bucket's numbers say until when it is
empty. If the shared numbers cannot be reached, the process counts by what it knows.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from hashlib import sha256
from math import ceil
from typing import NamedTuple, Protocol

from gateway.domain.rate_limit import parse_rates
from gateway.errors import Conflict, RateLimited, StoreUnavailable
from gateway.routing.admission import Caller
from gateway.routing.shared_bucket import Claim, SharedBucket
from runtime.events import emit
from runtime.tasks import spawn
from runtime.timeouts import silence_limit

CLAIM_WITHIN_S = 0.5
"""The most time for which calls wait for a claim."""
AWAY_S = 1.0
"""After a claim that got no response, calls do not wait for the next so many seconds."""
IDLE_S = 1.0
"""A stock that is not used for so long is given back."""
_FORGET_S = 60.0
_MAX_BUCKETS = 65_536
"""Buckets that a process knows; the oldest is forgotten for a further one."""
_MAX_RETURNS = 64
"""Stocks that are given back at the same time."""

_log = logging.getLogger("gateway.rates")


class Numbers(Protocol):
    """The shared numbers, as `gateway.store.interface.SharedNumbers` keeps them."""

    async def read(self, name: str) -> tuple[bytes, int] | None: ...

    async def replace(self, name: str, document: bytes, revision: int) -> int: ...


class _Line:
    """A bucket, and the calls that wait for its next claim."""

    __slots__ = ("bucket", "is_claiming", "name", "waiting", "whose")

    def __init__(self, name: str, whose: str, bucket: SharedBucket) -> None:
        self.name = name
        self.whose = whose
        self.bucket = bucket
        self.waiting: deque[asyncio.Future[bool]] = deque()
        self.is_claiming = False


class _Key(NamedTuple):
    version_id: str
    rate: str
    account: str
    user: str
    is_exact: bool


class RateLimits:
    """The rate limits of one process."""

    def __init__(self, numbers: Numbers, clock_ns: Callable[[], int]) -> None:
        """``clock_ns`` returns Unix nanoseconds: all processes compare them."""
        self._numbers = numbers
        self._clock_ns = clock_ns
        self._lines: dict[_Key, _Line] = {}
        self._away_until_ns = 0

    def __len__(self) -> int:
        return len(self._lines)

    def admit(self, caller: Caller) -> Coroutine[None, None, None] | None:
        """Count a call. `None`: it is admitted. Raises `RateLimited`.

        Otherwise it is not decided yet: the coroutine returns when it is admitted, and raises
        `RateLimited` if not. `withdraw` gives back what a call took that is not made after all.
        """
        now_ns = self._clock_ns()
        lines = self._lines_of(caller)
        for count, line in enumerate(lines):
            bucket = line.bucket
            if bucket.take(now_ns):
                if bucket.is_low(now_ns):
                    self._claim(line)
                continue
            for before in lines[:count]:
                before.bucket.put_back()
            if bucket.is_empty(now_ns):
                raise self._refusal(line, now_ns)
            return self._wait(lines)
        return None

    def withdraw(self, caller: Caller) -> None:
        """Give back what an admitted call took."""
        for line in self._lines_of(caller):
            line.bucket.put_back()

    def tick(self) -> None:
        """Give back what is not used, and forget what is not called; every second or so."""
        now_ns = self._clock_ns()
        idle_ns = now_ns - int(IDLE_S * 1e9)
        forgotten_ns = now_ns - int(_FORGET_S * 1e9)
        returns = 0
        forgotten = []
        for key, line in self._lines.items():
            bucket = line.bucket
            if bucket.used_ns > idle_ns or line.is_claiming:
                continue
            if bucket.stock:
                if returns < _MAX_RETURNS:
                    returns += 1
                    self._give_back(line)
            elif bucket.used_ns < forgotten_ns:
                forgotten.append(key)
        for key in forgotten:
            del self._lines[key]

    async def close(self) -> None:
        """Give back what this process has taken and not used; takes a moment at most."""
        lines = [line for line in self._lines.values() if line.bucket.stock]
        tasks = [task for line in lines if (task := self._give_back(line)) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=2 * CLAIM_WITHIN_S)

    def _lines_of(self, caller: Caller) -> list[_Line]:
        """Return the buckets that a call takes from."""
        version = caller.version
        policy = version.rate_limit
        if policy is None:
            return []
        lines = []
        rate = policy.rate_of(caller.account)
        if rate:
            key = _Key(version.version_id, rate, caller.account, "", policy.is_exact)
            lines.append(self._lines.get(key) or self._add(key, "the account"))
        if policy.per_user:
            user = f"{caller.key_digest.hex()} {caller.subject}"
            key = _Key(version.version_id, policy.per_user, caller.account, user, policy.is_exact)
            lines.append(self._lines.get(key) or self._add(key, "this caller"))
        return lines

    def _add(self, key: _Key, whose: str) -> _Line:
        if len(self._lines) >= _MAX_BUCKETS:
            del self._lines[next(iter(self._lines))]
        name = sha256("\0".join(key[:4]).encode()).hexdigest()[:32]
        bucket = SharedBucket(parse_rates(key.rate), is_exact=key.is_exact)
        line = self._lines[key] = _Line(name, whose, bucket)
        return line

    def _refusal(self, line: _Line, now_ns: int) -> RateLimited:
        wait_ns, rate = line.bucket.wait(now_ns)
        wait_s = max(ceil(wait_ns / 1e9), 1)
        return RateLimited(
            f"The function accepts {rate} from {line.whose}; they are used up",
            limit=rate.calls,
            retry_after_s=wait_s,
            reset_at=ceil(now_ns / 1e9) + wait_s,
        )

    async def _wait(self, lines: list[_Line]) -> None:
        for count, line in enumerate(lines):
            if not await self._take(line):
                for before in lines[:count]:
                    before.bucket.put_back()
                raise self._refusal(line, self._clock_ns())

    async def _take(self, line: _Line) -> bool:
        now_ns = self._clock_ns()
        if not line.waiting and line.bucket.take(now_ns):
            return True
        if line.bucket.is_empty(now_ns):
            return False
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        line.waiting.append(decided)
        self._claim(line)
        return await decided

    def _claim(self, line: _Line) -> None:
        if not line.is_claiming:
            line.is_claiming = True
            spawn(self._claim_all(line), "rate-claim")

    async def _claim_all(self, line: _Line) -> None:
        """Claim until nobody waits."""
        try:
            while True:
                count = len(line.waiting)
                await self._claim_for(line, count)
                self._decide(line, count)
                if not line.waiting:
                    return
        finally:
            line.is_claiming = False
            # After an unexpected error: nobody may wait for ever.
            self._decide(line, len(line.waiting))

    async def _claim_for(self, line: _Line, count: int) -> None:
        bucket = line.bucket
        if self._clock_ns() < self._away_until_ns:
            bucket.take_alone(count, self._clock_ns())
            return
        try:
            async with silence_limit(CLAIM_WITHIN_S):
                while not await self._try_claim(line, count):
                    pass
        except (StoreUnavailable, TimeoutError) as error:
            self._note_away(error)
            bucket.take_alone(count, self._clock_ns())

    async def _try_claim(self, line: _Line, count: int) -> bool:
        """Claim once; return False if another process was faster."""
        bucket = line.bucket
        if not bucket.is_known:
            bucket.read(await self._numbers.read(line.name))
        claim = bucket.claim(count, self._clock_ns())
        if claim is None:
            return True
        return await self._write(line, claim)

    async def _write(self, line: _Line, claim: Claim) -> bool:
        bucket = line.bucket
        bucket.sent()
        try:
            revision = await self._numbers.replace(line.name, claim.data, claim.revision)
        except Conflict:
            bucket.lost(claim)
            return False
        bucket.written(claim, revision)
        return True

    def _decide(self, line: _Line, count: int) -> None:
        """Admit or refuse the ``count`` calls that have waited longest."""
        now_ns = self._clock_ns()
        for _ in range(min(count, len(line.waiting))):
            decided = line.waiting.popleft()
            if not decided.done():
                decided.set_result(line.bucket.take(now_ns))

    def _give_back(self, line: _Line) -> asyncio.Task[None] | None:
        if line.is_claiming:
            return None
        line.is_claiming = True
        return spawn(self._give_back_all(line), "rate-return")

    async def _give_back_all(self, line: _Line) -> None:
        bucket = line.bucket
        try:
            async with silence_limit(CLAIM_WITHIN_S):
                while bucket.stock:
                    if not bucket.is_known:
                        bucket.read(await self._numbers.read(line.name))
                    await self._write(line, bucket.surrender(self._clock_ns()))
        except (StoreUnavailable, TimeoutError) as error:
            # The calls are lost to everyone until the bucket has filled up.
            bucket.stock = 0
            self._note_away(error)
        finally:
            line.is_claiming = False
            if line.waiting:
                self._claim(line)

    def _note_away(self, error: Exception) -> None:
        now_ns = self._clock_ns()
        if now_ns >= self._away_until_ns:
            emit(_log, "rates.alone", logging.WARNING, error=str(error) or "no response in time")
        self._away_until_ns = now_ns + int(AWAY_S * 1e9)
