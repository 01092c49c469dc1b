"""Where a request stands, whichever gateway process holds its client.

A request id names the process that gave it (`wire.ids`), and that process alone knows whose request
it is and of which version. So any process asks that one, over core NATS, on
``nvcf.request.<region>.<process in hex>``; the answer is JSON, or nothing when it knows no such
request. Two processes may have got the same number: then the first answer counts.
"""

from collections.abc import Collection
from typing import Protocol

import orjson

from gateway.api.route import QueuedRequest
from queueing.interface import QueueUnavailable
from queueing.nats.connection import Connection, NatsError, NoResponders, Subscription
from runtime.tasks import spawn
from wire.ids import parse_uuid, process_of


class Live(Protocol):
    """What is asked of a live invocation."""

    request_id: str

    @property
    def account(self) -> str:
        """The caller's account."""

    @property
    def version(self) -> "Versioned":
        """What was invoked."""


class Versioned(Protocol):
    """A function version, by its ids."""

    @property
    def function_id(self) -> str: ...

    @property
    def version_id(self) -> str: ...


class Positions(Protocol):
    """The part of `queueing.interface.FunctionQueue` that knows places."""

    async def position(self, version_id: str, request_id: str) -> int:
        """Return the place in line, 0 for a request that a worker has. Raises QueueUnavailable."""


class LiveRequests:
    """Finds requests of all processes. Implements `gateway.api.route.Requests`."""

    def __init__(
        self,
        live: Collection[Live],
        queue: Positions,
        connection: Connection,
        region: str,
        process: int,
    ) -> None:
        """``live`` are this process's invocations, as they come and go."""
        self._live = live
        self._queue = queue
        self._connection = connection
        self._region = region
        self._process = process
        self._subscription: Subscription | None = None

    def start(self) -> None:
        """Answer other processes from now on."""
        subject = self._subject(self._process)
        self._subscription = self._connection.subscribe(subject, self._asked)

    def close(self) -> None:
        """Answer nobody any more."""
        if self._subscription is not None:
            self._connection.unsubscribe(self._subscription)

    async def find(self, request_id: str) -> QueuedRequest | None:
        """Return where a request stands, `None` when it is unknown or over.

        Raises `QueueUnavailable`. Looks at every live invocation of one process.
        """
        found = await self._here(request_id)
        if found is not None or process_of(request_id) == self._process:
            return found
        subject = self._subject(process_of(request_id))
        try:
            reply = await self._connection.request(subject, request_id.encode())
        except NoResponders:
            return None
        except NatsError as error:
            raise QueueUnavailable(str(error)) from error
        return QueuedRequest(*orjson.loads(reply.payload)) if reply.payload else None

    def _subject(self, process: int) -> bytes:
        return f"nvcf.request.{self._region}.{process:04x}".encode()

    async def _here(self, request_id: str) -> QueuedRequest | None:
        live = next((one for one in self._live if one.request_id == request_id), None)
        if live is None:
            return None
        version, account = live.version, live.account
        place = await self._queue.position(version.version_id, request_id)
        return QueuedRequest(version.function_id, version.version_id, account, place)

    def _asked(self, _subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        request_id = parse_uuid(payload)
        if request_id is not None and reply:
            spawn(self._answer(request_id, reply), "request-find")

    async def _answer(self, request_id: str, reply: bytes) -> None:
        try:
            found = await self._here(request_id)
        except QueueUnavailable:
            return
        self._connection.publish(reply, orjson.dumps(list(found)) if found is not None else b"")
