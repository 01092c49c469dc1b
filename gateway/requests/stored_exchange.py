"""A client that asks for a call which no process holds: its stored response, or none."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import orjson

from gateway.errors import GatewayError
from gateway.requests.asked import EVENT_STREAM, JSON, Asked
from gateway.requests.errors import HolderLost, HolderSilent, RequestNotFound
from gateway.requests.event_ids import EventSearch
from gateway.requests.events import final_events
from gateway.requests.exchanges import is_event_stream
from gateway.requests.stored import Shown, StoredResponse, StoredResponses
from http1.stream import NullRequestStream, ResponseWriter
from runtime.tasks import spawn
from wire.headers import CONTENT_TYPE
from wire.http1 import BODILESS_STATUSES
from wire.ids import process_of

HasLived = Callable[[int], Awaitable[bool]]
"""Returns whether there ever was a process with this number.

Raises `gateway.requests.errors.HolderSilent` if it may still be there."""
Absent = Callable[[str], Awaitable[GatewayError]]
"""Returns, or raises, what is to be said of a call by its request id: nothing of it is stored."""
Complete = Callable[[dict[str, object]], Awaitable[dict[str, object]]]
"""Returns the view of a call with what became of its webhook."""


async def unknown_here(_request_id: str) -> GatewayError:
    """Return what is said of a call whose holder lives: what that does not know is not lost."""
    return RequestNotFound()


async def holder_silent(_request_id: str) -> GatewayError:
    """Return what is said while it is not known whether the holder lives."""
    return HolderSilent()


def lost_if(has_lived: HasLived) -> Absent:
    """Return what is said of calls whose holder does not live any more, if it ever has."""

    async def absent(request_id: str) -> GatewayError:
        return HolderLost() if await has_lived(process_of(request_id)) else RequestNotFound()

    return absent


class StoredExchange(NullRequestStream):
    """Serves one request from the object store.

    ``on_deleted`` is called with what was known of a response that has been deleted.
    """

    __slots__ = (
        "_absent",
        "_asked",
        "_client",
        "_complete",
        "_has_head",
        "_refused",
        "_responses",
        "_resumed",
        "_task",
        "on_deleted",
    )

    def __init__(
        self,
        asked: Asked,
        client: ResponseWriter,
        responses: StoredResponses,
        absent: Absent,
        complete: Complete,
        refused: ResponseWriter | None = None,
    ) -> None:
        """What is refused goes to ``refused``, if ``client`` puts responses into envelopes."""
        self._asked = asked
        self._client = client
        self._refused = refused or client
        self._responses = responses
        self._absent = absent
        self._complete = complete
        self._has_head = False
        self.on_deleted: Callable[[Shown], None] | None = None
        self._resumed = asyncio.Event()
        if not client.is_writing_paused():
            self._resumed.set()
        self._task = spawn(self._serve(), "requests.stored")

    def request_broken(self) -> None:
        """The client left."""
        self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than the store is read."""
        self._resumed.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._resumed.set()

    async def _serve(self) -> None:
        asked = self._asked
        try:
            stored = await self._responses.find(asked.request_id)
            if stored is None:
                raise await self._absent(asked.request_id)
            async with stored:
                await self._serve_stored(stored)
        except GatewayError as error:
            if self._has_head:
                self._client.abort()
            else:
                asked.refuse(self._refused, error)

    async def _serve_stored(self, stored: StoredResponse) -> None:
        asked, shown = self._asked, stored.shown
        if (
            not asked.may_see(shown.account, shown.owner, shown.function_id, shown.version_id)
            or shown.expires_at <= time.time()
        ):
            raise RequestNotFound
        if asked.request.method == b"DELETE":
            await self._responses.delete(asked.request_id)
            if self.on_deleted is not None:
                self.on_deleted(shown)
            asked.send(self._client, 204, [], b"")
        elif asked.part == b"response":
            await self._send_response(stored, shown)
        elif asked.part == b"events":
            events = final_events(shown.view, asked.last_event)
            if events:
                asked.send(self._client, 200, [(CONTENT_TYPE, EVENT_STREAM)], events)
            else:
                asked.send(self._client, 204, [], b"")
        else:
            view = await self._complete(shown.view)
            asked.send(self._client, 200, [(CONTENT_TYPE, JSON)], orjson.dumps(view))

    async def _send_response(self, stored: StoredResponse, shown: Shown) -> None:
        """Send the response as it was."""
        asked, client = self._asked, self._client
        begin = await self._begin_of(shown)
        size = self._size_of(stored, begin)
        self._has_head = True
        asked.counted(asked.request, shown.status)
        client.send_head(shown.status, asked.access.of_forwarded(shown.status, shown.headers), size)
        if asked.request.method != b"HEAD":
            async for part in stored.body():
                data = part[begin:]
                begin -= min(begin, len(part))
                if data:
                    await self._resumed.wait()
                    client.send_data(data)
            if shown.trailers:
                client.add_trailers(shown.trailers)
        client.send_end()

    def _size_of(self, stored: StoredResponse, begin: int) -> int | None:
        """Return the length to announce of the body from ``begin`` on."""
        if stored.shown.status in BODILESS_STATUSES or stored.shown.trailers:
            return None
        return stored.size - begin

    async def _begin_of(self, shown: Shown) -> int:
        """Return where the body begins for the client: after the event that it has seen last."""
        if not self._asked.last_event or not is_event_stream(shown.headers):
            return 0
        search = EventSearch(self._asked.last_event)
        again = await self._responses.find(self._asked.request_id)
        if again is not None:
            async with again:
                async for part in again.body():
                    search.add(part)
        return search.found_at or 0
