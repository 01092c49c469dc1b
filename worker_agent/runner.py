"""From leases to jobs, and back to the queue.

Asks for as many requests as there are free slots, keeps every job by its request id, renews all
leases by one ticker, and drains. A request that comes a second time while its first run still goes
on (its lease ran out) joins that run.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Protocol

from queueing.interface import Lease, PullConsumer
from wire.envelope import EnvelopeError, decode_envelope
from worker_agent.job.machine import Job, Site, State
from worker_agent.job.ports import Attach, Inference, Outcome
from worker_agent.job.request import Identity
from worker_agent.slots import Slots

MAX_JOB_S = 3610.0
"""No gateway waits longer than 3,605 s (``spec/invocation.md`` §6): a job this old is forgotten."""
_is_token = re.compile(r"[A-Za-z0-9\-._~+/]+=*").fullmatch

_log = logging.getLogger("worker.pull")


class Seen(Protocol):
    """Who counts."""

    def started(self, job: Job) -> None:
        """A job begins."""

    def freed(self, job: Job) -> None:
        """The inference server is done with a job, at `Job.freed_at`."""

    def ended(self, job: Job, now: float) -> None:
        """A job is over at ``now``, loop time in seconds."""

    def rejected(self) -> None:
        """An envelope that nobody can serve was taken out of the queue."""


class Intake:
    """All jobs of this agent; the `worker_agent.job.ports.Desk`."""

    def __init__(
        self,
        slots: Slots,
        identity: Identity,
        seen: Seen,
        *,
        is_target: Callable[[bytes], bool],
        is_busy: Callable[[], object],
    ) -> None:
        """``is_target`` tells whether an envelope's address can be attached to.

        ``is_busy`` is called for a job that comes while there is none.
        """
        self._slots = slots
        self._identity = identity
        self._seen = seen
        self._is_target = is_target
        self._is_busy = is_busy
        self._known_target = b""
        self._site: Site | None = None
        self._queue: PullConsumer | None = None
        self._jobs: dict[str, Job] = {}
        self._loop = asyncio.get_running_loop()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def running(self) -> int:
        """Jobs that are not over."""
        return len(self._jobs)

    def open(self, inference: Inference, attach: Attach, queue: PullConsumer) -> None:
        """Begin to ask for work; later, again, after `pause`."""
        self._site = Site(inference, attach, self, self._identity)
        self._queue = queue
        self.resume()

    def pause(self) -> None:
        """Ask for nothing more; what was asked for and still comes is handed back."""
        self._slots.is_open = False
        self._want()

    def resume(self) -> None:
        """Ask for work again."""
        self._slots.is_open = True
        self._want()

    def resize(self, limit: int, delivering_limit: int) -> None:
        """Take ``limit`` requests at a time from now on; what runs is finished."""
        slots = self._slots
        is_less = limit < slots.limit
        slots.resize(limit, delivering_limit)
        if is_less and self._queue is not None:
            # Withdraws what was asked for, which may be more than there is room for now.
            self._queue.want(0)
        self._want()

    async def drained(self) -> None:
        """Wait until no job is left."""
        await self._is_empty.wait()

    def abandon_all(self) -> None:
        """End every job now."""
        for job in list(self._jobs.values()):
            job.abandon()

    # The queue's callbacks

    def on_lease(self, lease: Lease) -> None:
        """A request was leased to us."""
        try:
            envelope = decode_envelope(lease.envelope)
        except EnvelopeError as error:
            self._reject(lease, str(error))
            return
        request_id = envelope.request_id
        if (running := self._jobs.get(request_id)) is not None:
            running.lease = lease
            self._want()
            return
        site = self._site
        if site is None or not self._slots.take():
            lease.nak()
            return
        if envelope.stateful or not envelope.method:
            self._slots.give_back()
            self._reject(lease, "neither sessions nor whole-request streaming are served")
            return
        if not self._can_answer(envelope.target_uri, envelope.response_token):
            self._slots.give_back()
            self._reject(lease, "no address or token to answer with")
            return
        job = Job(site, lease, envelope, self._loop.time())
        if not self._jobs:
            self._is_empty.clear()
            self._is_busy()
        self._jobs[request_id] = job
        self._seen.started(job)
        job.begin(time.time_ns())

    def on_cancel(self, request_id: str) -> None:
        """The gateway withdrew a request, which may be another worker's."""
        job = self._jobs.get(request_id)
        if job is not None:
            job.cancel()

    # Desk

    def freed(self, job: Job) -> None:
        """The inference server is done with a job."""
        self._slots.release()
        job.freed_at = self._loop.time()
        self._seen.freed(job)
        self._want()

    def finished(self, job: Job) -> None:
        """A job is over."""
        slots = self._slots
        was_full = slots.is_full()
        slots.delivered()
        del self._jobs[job.request_id]
        self._seen.ended(job, self._loop.time())
        if was_full:
            self._want()
        if not self._jobs:
            self._is_empty.set()
        if job.outcome is Outcome.UNDELIVERED:
            _log.warning("response.undelivered", extra={"fields": {"request_id": job.request_id}})

    def tick(self) -> None:
        """Renew every lease; to be called every 10 s (leases last 30 s)."""
        oldest = self._loop.time() - MAX_JOB_S
        for job in list(self._jobs.values()):
            if job.leased_at < oldest and job.state is not State.DONE:
                job.cancel()
            else:
                job.lease.in_progress()

    def _want(self) -> None:
        if self._queue is not None:
            self._queue.want(self._slots.free())

    def _can_answer(self, target_uri: bytes, token: str) -> bool:
        if target_uri != self._known_target:
            if not self._is_target(target_uri):
                return False
            self._known_target = target_uri
        return _is_token(token) is not None

    def _reject(self, lease: Lease, reason: str) -> None:
        self._seen.rejected()
        _log.warning("envelope.rejected", extra={"fields": {"reason": reason}})
        lease.term()
        self._want()
