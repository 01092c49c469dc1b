"""Finds a request and its position, whichever gateway process holds its client.

A request id contains the number of the process that made it (`wire.ids`), and only that process
knows the invocation. Any other process asks it on ``nvcf.request.<region>.<process in hex>``, in
whichever region it is; the reply is JSON, or empty for an unknown request. If two processes have
the same number, the first reply counts. A call that a worker has over a channel is at position 0 at
once.
"""

from collections.abc import Mapping
from functools import partial

import orjson

from gateway.domain.queued_request import QueuedRequest
from gateway.invocation.machine import Invocation
from gateway.requests.regions import Regions
from queueing.interface import Bus, FunctionQueue, NoResponder, QueueUnavailable, Subscription
from runtime.tasks import spawn
from wire.ids import parse_uuid, process_of
from wire.subjects import locate_subject


class RequestLocator:
    """Finds requests of all processes. Implements `gateway.api.route.RequestLocator`."""

    def __init__(
        self,
        live: Mapping[str, Invocation],
        queue: FunctionQueue,
        bus: Bus,
        regions: Regions,
        process: int,
    ) -> None:
        """``live`` are the invocations of this process by request id, ``process`` is its number."""
        self._live = live
        self._queue = queue
        self._bus = bus
        self._regions = regions
        self._process = process
        self._subscription: Subscription | None = None

    def start(self) -> None:
        """Respond to other processes from now on."""
        subject = locate_subject(self._regions.own, self._process).encode()
        self._subscription = self._bus.subscribe(subject, self._on_question)

    def close(self) -> None:
        """Stop responding."""
        if self._subscription is not None:
            self._subscription.unsubscribe()

    async def find(self, request_id: str) -> QueuedRequest | None:
        """Return a request and its position, `None` if it is unknown or finished.

        Raises `QueueUnavailable`.
        """
        found = await self._find_here(request_id)
        if found is not None or process_of(request_id) == self._process:
            return found
        subject_in = partial(locate_subject, process=process_of(request_id))
        try:
            reply = await self._regions.ask(subject_in, request_id.encode())
        except NoResponder:
            return None
        return QueuedRequest(*orjson.loads(reply)) if reply else None

    async def _find_here(self, request_id: str) -> QueuedRequest | None:
        invocation = self._live.get(request_id)
        if invocation is None:
            return None
        version, account = invocation.version, invocation.account
        position = 0
        if not invocation.is_direct:
            position = await self._queue.position(version.version_id, request_id)
        url = invocation.source.url.decode("latin-1")
        return QueuedRequest(version.function_id, version.version_id, account, position, url)

    def _on_question(self, _subject: bytes, reply: bytes, payload: bytes) -> None:
        request_id = parse_uuid(payload)
        if request_id is not None and reply:
            spawn(self._respond(request_id, reply), "request-find")

    async def _respond(self, request_id: str, reply: bytes) -> None:
        try:
            found = await self._find_here(request_id)
        except QueueUnavailable:
            return
        self._bus.publish(reply, orjson.dumps(list(found)) if found is not None else b"")
