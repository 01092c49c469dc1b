"""Delivers the webhooks in the store: at least once, until a day has passed.

Every process with the role ``api`` follows the bucket, and remembers of each webhook only when it
is due. Who takes one writes its own name into the document, on condition that nobody has written
since; an attempt that was not finished `LEASE_S` after that, by the clock of who watches, is
another process's to repeat. So nothing is lost with a process, and a receiver may get a webhook
twice.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from gateway.auth.sealing import SealError
from gateway.domain.documents import RecordError
from gateway.errors import BadRequest, Conflict, StoreUnavailable
from gateway.webhooks.addresses import host_of
from gateway.webhooks.records import (
    BUCKET,
    DELIVERED,
    FAILED,
    PENDING,
    Documents,
    WebhookDelivery,
    decode,
    message_id,
)
from gateway.webhooks.schedule import next_delay_s
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.sender import TIMEOUT_S, WebhookAttempt, WebhookSender
from gateway.webhooks.signing import signed_headers
from runtime.events import emit
from runtime.metrics import MetricRegistry, Reading, ScrapedCounter
from runtime.tasks import spawn
from runtime.timers import IDLE, Timers

TICK_S = 0.1
LEASE_S = 3 * TIMEOUT_S
"""After so long another process takes it that an attempt has died with its process."""
MAX_RUNNING = 64
"""Attempts of a process at the same time."""
MAX_PER_HOST = 8
"""And of these, to one host: one that does not respond must not hold up the others."""
MAX_PER_ACCOUNT = 10_000
"""Webhooks of one account that may wait; further ones fail at once."""
MAX_ENDED = 20_000
"""Webhooks that have ended and can still be looked at; further ones replace the oldest."""
SPREAD_S = 0.1
"""Processes try to take a webhook at different times within this one."""
STOP_S = 3.0
"""The most time for attempts on their way when the process stops."""
RETRY_STORE_S = 5.0
"""Delay of an attempt that failed because of the store."""
_GONE = 410
_UNSIGNED = WebhookAttempt(0, "secret_unreadable")

_log = logging.getLogger("gateway.webhooks")


class StoredEntry(Protocol):
    """The latest document of one name; ``data`` is `None` if it was deleted."""

    @property
    def name(self) -> str: ...

    @property
    def data(self) -> bytes | None: ...

    @property
    def revision(self) -> int: ...


class _Known:
    """What is remembered of one webhook in the store. A `runtime.timers.TimerOwner`.

    ``is_ended``: nothing is to be sent any more. ``is_busy``: it waits for its turn here, or is
    being sent. ``planned_at`` is when something is due, by the latest document.
    """

    __slots__ = (
        "account",
        "due_at",
        "host",
        "is_busy",
        "is_ended",
        "name",
        "planned_at",
        "revision",
        "slot",
    )

    def __init__(self, name: str, account: str, host: str) -> None:
        self.name = name
        self.account = account
        self.host = host
        self.revision = 0
        self.is_busy = self.is_ended = False
        self.planned_at = 0.0
        self.due_at: float | None = None
        self.slot = IDLE


class WebhookClocks(NamedTuple):
    """Unix seconds, the monotonic clock's seconds, and a number from 0.0 up to 1.0."""

    now: Callable[[], float]
    monotonic: Callable[[], float]
    random: Callable[[], float]


def _readings(counts: Mapping[str, int]) -> Iterator[Reading]:
    for label, count in counts.items():
        yield (label,), count


class WebhookDeliverer:
    """The webhooks of all processes, as one process delivers them.

    Receives the bucket `BUCKET` from a follower of the store, and is ticked every `TICK_S`.
    """

    def __init__(
        self,
        store: Documents,
        secrets: WebhookSecrets,
        sender: WebhookSender,
        clocks: WebhookClocks,
        owner: str,
        keep_s: float,
    ) -> None:
        """``owner`` is unique among all processes. What has ended is kept for ``keep_s``."""
        self._store = store
        self._secrets = secrets
        self._sender = sender
        self._clocks = clocks
        self._owner = owner
        self._keep_s = keep_s
        self._known: dict[str, _Known] = {}
        self._missing: set[str] = set()
        self._waiting: dict[str, int] = {}
        self._ended: dict[str, None] = {}
        self._timers: Timers[_Known] = Timers(TICK_S, clocks.monotonic())
        self._ready: dict[str, deque[_Known]] = {}
        self._running: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._attempts: dict[str, int] = {}
        self._ends = {DELIVERED: 0, FAILED: 0}

    def show_state(self, registry: MetricRegistry) -> None:
        """Declare the metrics."""
        pending = registry.gauge("gateway_webhooks_pending", "Webhooks in the store to deliver")
        pending.child().set_function(lambda: sum(self._waiting.values()))
        for name, help_text, label, counts in (
            (
                "gateway_webhook_attempts_total",
                "Attempts to deliver a webhook, by the response's status or what was in the way",
                "result",
                self._attempts,
            ),
            ("gateway_webhooks_total", "Webhooks that have ended", "outcome", self._ends),
        ):
            registry.add(ScrapedCounter(name, help_text, (label,), partial(_readings, counts)))

    # The store

    def begin(self) -> None:
        """Every webhook is delivered again from here to `loaded`."""
        self._missing = set(self._known)

    def entry(self, entry: StoredEntry) -> None:
        """Take the latest document of one webhook, or its deletion."""
        self._missing.discard(entry.name)
        if entry.data is None:
            self._forget(entry.name)
            return
        try:
            delivery = decode(entry.data)
        except RecordError as error:
            fields = {"bucket": BUCKET, "name": entry.name, "error": str(error)}
            emit(_log, "store.bad_record", logging.ERROR, **fields)
            self._forget(entry.name)
            return
        known = self._known.get(entry.name)
        if known is None:
            known = _Known(entry.name, delivery.account, host_of(delivery.url))
            self._known[entry.name] = known
            self._waiting[known.account] = self._waiting.get(known.account, 0) + 1
        if entry.revision >= known.revision:
            known.revision = entry.revision
            self._plan(known, delivery)

    def loaded(self) -> None:
        """Every webhook that was in the store is known."""
        for name in self._missing:
            self._forget(name)
        self._missing = set()

    def _plan(self, known: _Known, delivery: WebhookDelivery) -> None:
        """Decide when a webhook is due."""
        clocks = self._clocks
        if delivery.state != PENDING:
            if not known.is_ended:
                known.is_ended = True
                self._count_down(known.account)
                self._ended[known.name] = None
                if len(self._ended) > MAX_ENDED:
                    oldest = next(iter(self._ended))
                    self._timers.schedule(clocks.monotonic(), self._known[oldest])
                    del self._ended[oldest]
            due_s = delivery.ended_at + self._keep_s - clocks.now()
        elif delivery.holder:
            due_s = LEASE_S
        else:
            due_s = delivery.next_at - clocks.now()
        due_s = max(due_s, 0.0) + SPREAD_S * clocks.random()
        known.planned_at = clocks.monotonic() + due_s
        if not known.is_busy:
            self._timers.schedule(known.planned_at, known)

    def _forget(self, name: str) -> None:
        known = self._known.pop(name, None)
        if known is None:
            return
        self._timers.cancel(known)
        self._ended.pop(name, None)
        if not known.is_ended:
            known.is_ended = True
            self._count_down(known.account)

    def _count_down(self, account: str) -> None:
        left = self._waiting[account] - 1
        if left:
            self._waiting[account] = left
        else:
            del self._waiting[account]

    # Time

    def tick(self) -> None:
        """Begin what is due; to be called every `TICK_S`."""
        if self._is_stopped:
            return
        for known in self._timers.advance(self._clocks.monotonic()):
            known.is_busy = True
            self._ready.setdefault("" if known.is_ended else known.host, deque()).append(known)
        if self._ready:
            self._start()

    async def stop(self, within_s: float = STOP_S) -> None:
        """Begin nothing more, and wait a little for what has begun.

        What is not over then is repeated by another process.
        """
        self._is_stopped = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._sender.close()

    def _start(self) -> None:
        """Begin as many attempts as may run, one for each host in turn."""
        while len(self._tasks) < MAX_RUNNING and not self._is_stopped:
            # At most as many are passed over as can have all their attempts on their way.
            free = (one for one in self._ready if self._running.get(one, 0) < MAX_PER_HOST)
            host = next(free, None)
            if host is None:
                return
            waiting = self._ready.pop(host)
            known = waiting.popleft()
            if waiting:
                # Behind the others.
                self._ready[host] = waiting
            self._running[host] = self._running.get(host, 0) + 1
            task = spawn(self._run(known), "webhook")
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, host))

    def _done(self, host: str, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._running[host] -= 1
        if not self._running[host]:
            del self._running[host]
        if self._ready:
            self._start()

    async def _run(self, known: _Known) -> None:
        """Do what is due of one webhook."""
        least_s = 0.0
        try:
            if known.is_ended:
                await self._store.delete_raw(BUCKET, known.name, known.revision)
                self._forget(known.name)
            else:
                await self._attempt(known)
        except Conflict:
            # Another process was faster. The feed tells what it has written, if it has not yet.
            least_s = 0.0 if known.planned_at > self._clocks.monotonic() else LEASE_S
        except (StoreUnavailable, RecordError) as error:
            fields = {"request_id": known.name, "error": str(error)}
            emit(_log, "webhook.not_attempted", logging.WARNING, **fields)
            least_s = RETRY_STORE_S
        known.is_busy = False
        if self._known.get(known.name) is known:
            earliest = self._clocks.monotonic() + least_s
            self._timers.schedule(max(known.planned_at, earliest), known)

    async def _attempt(self, known: _Known) -> None:
        """Take a webhook, send it, and write what became of that."""
        name = known.name
        found = await self._store.get_raw(BUCKET, name)
        if found is None:
            self._forget(name)
            return
        data, revision = found
        delivery = decode(data)
        if delivery.state != PENDING or (delivery.holder and revision != known.revision):
            raise Conflict
        refusal = self._refusal(delivery)
        if refusal:
            await self._end(known, replace(delivery, error=refusal), FAILED, revision)
            return
        delivery = replace(delivery, attempts=delivery.attempts + 1)
        try:
            secret = await self._secrets.of(delivery.account)
        except SealError:
            # It may be given a readable one within the day.
            await self._finish(known, delivery, _UNSIGNED, revision)
            return
        delivery = replace(delivery, holder=self._owner)
        revision = await self._write(known, delivery, revision)
        now = self._clocks.now()
        body = delivery.body.encode()
        headers = signed_headers(secret.signing(now), message_id(name), int(now), body)
        attempt = await self._sender.send(delivery.url, headers, body, now)
        await self._finish(known, delivery, attempt, revision)

    def _refusal(self, delivery: WebhookDelivery) -> str:
        """Return in one word why a webhook is not sent at all; empty if it is."""
        if self._waiting.get(delivery.account, 0) > MAX_PER_ACCOUNT and not delivery.attempts:
            return "too_many"
        try:
            self._sender.rules.check_url(delivery.url.encode())
        except BadRequest:
            # The settings have changed, or are others in the process that accepted the call.
            return "url_refused"
        return ""

    async def _finish(
        self, known: _Known, delivery: WebhookDelivery, attempt: WebhookAttempt, revision: int
    ) -> None:
        now = self._clocks.now()
        result = attempt.error or str(attempt.status)
        self._attempts[result] = self._attempts.get(result, 0) + 1
        delivery = replace(delivery, holder="", status=attempt.status, error=attempt.error)
        if 200 <= attempt.status < 300:
            await self._end(known, delivery, DELIVERED, revision)
            return
        delay_s = next_delay_s(
            delivery.attempts,
            now - delivery.created_at,
            attempt.retry_after_s,
            self._clocks.random(),
        )
        if attempt.status == _GONE or delay_s is None:
            await self._end(known, delivery, FAILED, revision)
            return
        emit(
            _log,
            "webhook.not_delivered",
            request_id=known.name,
            host=known.host,
            attempts=delivery.attempts,
            result=result,
            retry_s=round(delay_s, 1),
        )
        await self._write(known, replace(delivery, next_at=now + delay_s), revision)

    async def _end(
        self, known: _Known, delivery: WebhookDelivery, state: str, revision: int
    ) -> None:
        await self._write(known, delivery.ended(state, self._clocks.now()), revision)
        self._ends[state] += 1
        if state == FAILED:
            emit(
                _log,
                "webhook.failed",
                logging.WARNING,
                request_id=known.name,
                host=known.host,
                attempts=delivery.attempts,
                result=delivery.error or str(delivery.status),
            )

    async def _write(self, known: _Known, delivery: WebhookDelivery, revision: int) -> int:
        """Write a document in place of ``revision``, and know when it is due next."""
        written = await self._store.put_raw(BUCKET, known.name, delivery.encode(), revision)
        if written > known.revision:
            known.revision = written
            self._plan(known, delivery)
        return written
