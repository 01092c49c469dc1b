"""`QueueTransport`: tells the queue position of calls of threads while they wait."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx

from invocation_client.cancellation import outside, present
from invocation_client.queue_updates import (
    MAX_BREAKS,
    OnUpdate,
    Waiting,
    pause_s,
    waiting_call,
    watched,
)


class QueueTransport(httpx.BaseTransport):
    """Calls ``on_update`` with a `QueueUpdate` when a call's position in the queue changes.

    It wraps ``transport``, which sends the requests. The response of each call is as without it,
    whatever becomes of the connection while the call waits. A call that is given up is cancelled.
    ``on_update`` runs in the thread of its call.
    """

    def __init__(self, transport: httpx.BaseTransport, on_update: OnUpdate) -> None:
        self._transport = transport
        self._on_update = on_update

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Call; return when the response head has come. Raises `httpx.TransportError`."""
        accepted = self._transport.handle_request(watched(request))
        waiting = waiting_call(request, accepted)
        if waiting is None:
            return accepted
        try:
            accepted.read()
            self._follow(waiting)
            response = self._transport.handle_request(waiting.response())
        except BaseException:
            self._cancel(waiting)
            raise
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_CancelledStream(response, lambda: self._cancel(waiting)),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the wrapped transport."""
        self._transport.close()

    def _follow(self, waiting: Waiting) -> None:
        """Return when the response has begun; come again if the events break off."""
        breaks = 0
        while True:
            try:
                response = self._transport.handle_request(waiting.events())
                try:
                    if not response.is_success or response.status_code == httpx.codes.NO_CONTENT:
                        # There is a response, or a problem, in its place.
                        return
                    for line in response.iter_lines():
                        update, has_begun = waiting.reader.read(line)
                        if update is not None:
                            breaks = 0
                            self._on_update(update)
                        if has_begun:
                            return
                finally:
                    response.close()
            except httpx.TransportError:
                cancellation = present()
                if cancellation is not None:
                    cancellation.check()
                if breaks >= MAX_BREAKS:
                    raise
            breaks += 1
            if breaks > MAX_BREAKS:
                raise httpx.RemoteProtocolError("the events of the call break off")
            time.sleep(pause_s(breaks))

    def _cancel(self, waiting: Waiting) -> None:
        with outside(), suppress(httpx.TransportError):
            self._transport.handle_request(waiting.cancel()).close()


class _CancelledStream(httpx.SyncByteStream):
    """The body of a response; its call is cancelled if the body is closed before its end."""

    def __init__(self, response: httpx.Response, cancel: Callable[[], None]) -> None:
        self._response = response
        self._cancel = cancel
        self._is_complete = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_raw()
        self._is_complete = True

    def close(self) -> None:
        self._response.close()
        if not self._is_complete:
            self._is_complete = True
            self._cancel()
