"""The detached calls of one gateway process, by request id.

A call is in the book while it runs and until its response is stored; short responses stay a while
longer, because most are fetched soon. A response that the object store does not take is kept, and
offered again until the process ends.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice

from gateway.errors import BadRequest, GatewayError, StoreUnavailable
from gateway.invocation.collection import SpoolFile, SpoolUser
from gateway.requests.detached import PARTS, AccountBytes, DetachedCall, Limits
from gateway.requests.errors import StorageQuota, TooManyDetachedCalls
from gateway.requests.exchanges import Window
from gateway.requests.recording import MEMORY_BYTES, RecordingSpace
from gateway.requests.stored import StoredResponses, is_short
from gateway.requests.views import view_of
from gateway.webhooks.outbox import WebhookOutbox
from http1.stream import ResponseWriter
from runtime.events import emit
from runtime.tasks import spawn
from runtime.timers import Timers

_STORING = 4
"""Operations of the object store at a time: a long response, or a batch of short ones."""
_BATCH = 64
"""Short responses in one operation: to change threads for each costs more than to write it."""
_GATHER_S = 0.05
"""Time between two such operations. A response that comes alone is stored at once."""
RETRIES_S = (0.5, 2.0, 8.0)
"""A response that could not be stored is tried again after so many seconds."""
STORE_AGAIN_S = 30.0
"""And then whenever so many seconds have passed: it is shown, but lost with the process."""
_CACHED_BYTES = 16_777_216
_CACHED_CALLS = 2048
"""What is kept in memory of stored responses."""
_OVERHEAD_BYTES = 2048
"""What a call in memory takes beside its body, about."""
_DELETED_CALLS = 1024
"""Calls of which is remembered that their bytes count no more."""

_log = logging.getLogger("gateway.requests")


class RequestBook:
    """Implements `gateway.requests.detached.CallPorts` and `gateway.requests.exchanges.Windows`.

    ``calls`` are by request id. ``running`` counts those that are not over, ``unsettled`` those
    that are over and not stored yet, ``stored`` the responses that were stored, and ``not_stored``
    those that the object store did not take.
    """

    def __init__(
        self,
        open_file: Callable[[SpoolUser], SpoolFile],
        clock: Callable[[], float],
        limits: Limits,
        max_calls: int,
        responses: StoredResponses,
        webhooks: WebhookOutbox | None = None,
    ) -> None:
        """``clock`` is the monotonic clock. Without ``webhooks`` calls may have none."""
        self.calls: dict[str, DetachedCall] = {}
        self.space = RecordingSpace(open_file)
        self.clock = clock
        self.limits = limits
        self.responses = responses
        self._webhooks = webhooks
        self.running = self.unsettled = self.stored = self.not_stored = 0
        self._max_calls = max_calls
        self._accounts: dict[str, AccountBytes] = {}
        self._part_s = responses.retention_s / PARTS
        self._part_ends_at = clock() + self._part_s
        self._windows: Timers[Window] = Timers(now=clock())
        self._waiting: deque[DetachedCall] = deque()
        self._storers = 0
        self._unstored: dict[str, DetachedCall] = {}
        self._again_at = 0.0
        self._again: asyncio.Task[None] | None = None
        self._cached: OrderedDict[str, DetachedCall] = OrderedDict()
        self._cached_bytes = 0
        self._deleted: dict[str, None] = {}
        self._changed = asyncio.Event()

    def make(
        self, account: str, source: ResponseWriter, kind: str, created_at: float
    ) -> DetachedCall:
        """Return a new call of ``account``; `add` it once its invocation has begun.

        Raises `TooManyDetachedCalls` and `StorageQuota`.
        """
        return DetachedCall(self, self.room_for(account), source, kind, created_at)

    def room_for(self, account: str) -> AccountBytes:
        """Return what counts the bytes of ``account``, if there is room for another call.

        Raises `TooManyDetachedCalls` and `StorageQuota`.
        """
        if len(self.calls) - len(self._cached) >= self._max_calls:
            raise TooManyDetachedCalls
        counted = self._accounts.get(account)
        if counted is None:
            counted = self._accounts[account] = AccountBytes()
        if 0 < self.limits.account_bytes <= counted.bytes:
            raise StorageQuota
        return counted

    def add(self, call: DetachedCall) -> None:
        """Keep a call whose invocation has begun."""
        self.calls[call.request_id] = call
        self.running += 1
        if call.is_over:
            self.finished(call)

    def check_webhook(self, url: bytes) -> None:
        """Raise `BadRequest` if no webhook may go to ``url``."""
        if self._webhooks is None:
            raise BadRequest("This gateway sends no webhooks")
        self._webhooks.rules.check_url(url)

    async def with_webhook(self, view: dict[str, object]) -> dict[str, object]:
        """Return the view of a call with what became of its webhook, if it has one."""
        if "webhook" not in view or "finishedAt" not in view or self._webhooks is None:
            return view
        try:
            webhook = await self._webhooks.view(str(view["requestId"]))
        except StoreUnavailable:
            webhook = {"state": "unknown"}
        return {**view, "webhook": webhook}

    def find(self, request_id: str) -> DetachedCall | None:
        """Return the call with this id, `None` if it is not here."""
        return self.calls.get(request_id)

    async def delete(self, call: DetachedCall) -> None:
        """Cancel the call, or forget the response of one that is over.

        Raises `StoreUnavailable`.
        """
        if not call.is_over:
            call.cancel()
            return
        call.is_kept = False
        if call.is_settled:
            self._forget(call)
            await self.responses.delete(call.request_id)
            if self._is_counted(call.request_id):
                call.count_dropped(self._parts_ago(call))

    def deleted(self, request_id: str, account: str, kept_bytes: int, finished_at: float) -> None:
        """A stored response of this process was deleted; ``finished_at`` is in Unix seconds."""
        counted = self._accounts.get(account)
        if counted is not None and self._is_counted(request_id):
            counted.drop(kept_bytes, self._parts_since(time.time() - finished_at))

    def _is_counted(self, request_id: str) -> bool:
        """Return whether the bytes of a response that is deleted count still, and no more now.

        Several clients may delete it at the same time.
        """
        is_counted = request_id not in self._deleted
        self._deleted[request_id] = None
        if len(self._deleted) > _DELETED_CALLS:
            del self._deleted[next(iter(self._deleted))]
        return is_counted

    def _parts_ago(self, call: DetachedCall) -> int:
        """Return how many parts of the retention have begun since a call was over."""
        return 0 if call.ending is None else self._parts_since(self.clock() - call.ending.ended_at)

    def _parts_since(self, age_s: float) -> int:
        before_s = age_s - (self.clock() - self._part_ends_at + self._part_s)
        return 0 if before_s <= 0.0 else 1 + int(before_s / self._part_s)

    def tick(self) -> None:
        """Call `Window.timed_out` of each window whose time has come; a few times per second."""
        now = self.clock()
        for window in self._windows.advance(now):
            window.timed_out()
        if self._unstored and self._again is None and now >= self._again_at:
            self._begin_again()
        if now >= self._part_ends_at:
            self._part_ends_at = now + self._part_s
            used = {call.account for call in self.calls.values()}
            for account, counted in list(self._accounts.items()):
                counted.begin_part()
                if not counted.bytes and account not in used:
                    del self._accounts[account]
            for calls in (self._cached, self._unstored):
                for call in [call for call in calls.values() if self._is_outdated(call)]:
                    self._forget(call)

    async def wait_running(self, timeout_s: float) -> None:
        """Return when no call runs, or after ``timeout_s``."""
        await self._wait(lambda: not self.running, timeout_s)

    async def wait_settled(self, timeout_s: float) -> None:
        """Return when every response is stored or cannot be, or after ``timeout_s``."""
        until = self.clock() + timeout_s
        await self._wait(lambda: not self.unsettled, timeout_s)
        if self._unstored:
            await asyncio.wait([self._begin_again()], timeout=max(until - self.clock(), 0.0))

    async def _wait(self, is_done: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not is_done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    # `CallPorts`

    def finished(self, call: DetachedCall) -> None:
        """The call is over: store what became of it."""
        if call.request_id not in self.calls:
            return
        self.running -= 1
        self.unsettled += 1
        self._changed.set()
        if not call.is_kept:
            self._settle(call, is_stored=False)
            return
        self._waiting.append(call)
        # One operation for all short ones that come meanwhile; long ones are on their own.
        if self._storers < (1 if is_short(call) else _STORING):
            self._storers += 1
            spawn(self._store_waiting(), "requests.store")

    async def _store_waiting(self) -> None:
        """Store long responses one by one, and short ones as many as there are at once."""
        try:
            while self._waiting:
                calls = [self._waiting.popleft()]
                if is_short(calls[0]):
                    while self._waiting and len(calls) < _BATCH and is_short(self._waiting[0]):
                        calls.append(self._waiting.popleft())
                is_stored = await self._store(calls)
                for call in calls:
                    if call.webhook_url:
                        # Not here: it may take its time, and others wait for their turn.
                        spawn(self._tell(call, is_stored=is_stored), "requests.webhook")
                    else:
                        self._settle(call, is_stored=is_stored)
                        if not call.is_kept:
                            await self._delete_stored(call)
                if is_short(calls[-1]) and len(self._waiting) < _BATCH:
                    await asyncio.sleep(_GATHER_S)
        finally:
            self._storers -= 1

    async def _tell(self, call: DetachedCall, *, is_stored: bool) -> None:
        """Store the webhook of a call before anybody is shown that the call is over."""
        ending = call.ending
        if ending is not None and self._webhooks is not None:
            view = {**view_of(call), "state": ending.state}
            view.pop("webhook", None)
            await self._webhooks.keep(
                call.request_id, call.account, call.webhook_url, ending.state, view
            )
        self._settle(call, is_stored=is_stored)
        if not call.is_kept:
            await self._delete_stored(call)

    async def _store(self, calls: list[DetachedCall]) -> bool:
        """Store responses; return whether they are stored."""
        cause = ""
        for wait_s in (*RETRIES_S, 0.0):
            try:
                await self._put(calls)
            except StoreUnavailable as error:
                cause = str(error)
            else:
                return True
            if wait_s:
                await asyncio.sleep(wait_s)
        self.not_stored += len(calls)
        for call in calls:
            emit(_log, "request.not_stored", logging.ERROR, request_id=call.request_id, error=cause)
        return False

    async def _put(self, calls: list[DetachedCall]) -> None:
        """Store a long response, or several short ones. Raises `StoreUnavailable`."""
        if is_short(calls[0]):
            await self.responses.put_short(calls)
        else:
            await self.responses.put(calls[0])
        self.stored += len(calls)

    def _begin_again(self) -> "asyncio.Task[None]":
        if self._again is None:
            self._again = spawn(self._store_again(), "requests.store-again")
        return self._again

    async def _store_again(self) -> None:
        """Store what could not be stored, until there is nothing left or it fails again."""
        try:
            while self._unstored:
                calls = list(islice(self._unstored.values(), _BATCH))
                calls = [call for call in calls if is_short(call)] or calls[:1]
                for call in calls:
                    # Behind the others, in case that this one is what cannot be stored.
                    self._unstored[call.request_id] = self._unstored.pop(call.request_id)
                await self._put(calls)
                for call in calls:
                    if self._unstored.pop(call.request_id, None) is None:
                        await self._delete_stored(call)
                    else:
                        self._cache(call)
        except StoreUnavailable:
            return
        finally:
            self._again = None
            self._again_at = self.clock() + STORE_AGAIN_S

    async def _delete_stored(self, call: DetachedCall) -> None:
        """Delete what was to be deleted while it was stored."""
        try:
            await self.responses.delete(call.request_id)
        except GatewayError as error:
            emit(_log, "request.not_deleted", logging.WARNING, error=str(error))

    def _settle(self, call: DetachedCall, *, is_stored: bool) -> None:
        self.unsettled -= 1
        call.settled()
        self._changed.set()
        has_problem = call.ending is not None and call.ending.problem is not None
        is_dropped = has_problem or not call.is_kept
        if is_dropped and self._is_counted(call.request_id):
            call.count_dropped(self._parts_ago(call))
        if not call.is_kept:
            self._forget(call)
        elif is_stored:
            self._cache(call)
        else:
            self._unstored[call.request_id] = call

    def _cache(self, call: DetachedCall) -> None:
        """Keep a short stored response for a while; let the oldest ones go."""
        size = call.recording.size
        if size > MEMORY_BYTES:
            self._forget(call)
            return
        self._cached[call.request_id] = call
        self._cached_bytes += size + _OVERHEAD_BYTES
        while self._cached_bytes > _CACHED_BYTES or len(self._cached) > _CACHED_CALLS:
            self._forget(next(iter(self._cached.values())))

    def _forget(self, call: DetachedCall) -> None:
        self.calls.pop(call.request_id, None)
        self._unstored.pop(call.request_id, None)
        if self._cached.pop(call.request_id, None) is not None:
            self._cached_bytes -= call.recording.size + _OVERHEAD_BYTES
        call.recording.drop_when_left()

    def _is_outdated(self, call: DetachedCall) -> bool:
        ending = call.ending
        if ending is None:
            return False
        return self.clock() - ending.ended_at > self.responses.retention_s

    # `Windows`

    def open(self, window: Window, seconds: float) -> None:
        """Call ``window`` back in so many seconds."""
        self._windows.schedule(self.clock() + seconds, window)

    def close(self, window: Window) -> None:
        """Do not call it back."""
        self._windows.cancel(window)
