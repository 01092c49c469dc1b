"""`QueueTransport`: tells the queue position of calls of threads while they wait."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from time import monotonic

import httpx

from invocation_client.cancellation import outside, present
from invocation_client.connection import CLOSED
from invocation_client.queue_updates import (
    OnUpdate,
    Waiting,
    is_passing,
    is_soon_sent,
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
        self._is_closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Call; return when the response head has come. Raises `httpx.TransportError`."""
        accepted = self._send(request)
        waiting = waiting_call(request, accepted, monotonic())
        if waiting is None:
            return accepted
        try:
            accepted.read()
            self._follow(waiting)
            response = self._fetch(waiting)
            if response.is_error and not waiting.has_begun:
                self._cancel(waiting)  # this may be of a proxy, and the call goes on
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
        """Close the wrapped transport; calls that wait raise `httpx.ReadError`."""
        self._is_closed = True
        self._transport.close()

    def _send(self, call: httpx.Request) -> httpx.Response:
        cancellation = present()
        if cancellation is not None:
            cancellation.check()
        # A call that is cancelled before its id is known would run.
        with outside() if is_soon_sent(call) else nullcontext():
            return self._transport.handle_request(watched(call))

    def _follow(self, waiting: Waiting) -> None:
        """Return when there is a response; come again if the events break off."""
        while True:
            try:
                if self._read_events(waiting):
                    return
                broken: httpx.TransportError | None = None
            except httpx.TransportError as error:
                broken = error
            if not self._pause(waiting):
                if broken is not None:
                    raise broken
                return

    def _read_events(self, waiting: Waiting) -> bool:
        """Return whether the response, or the problem in its place, can be fetched."""
        response = self._transport.handle_request(waiting.events())
        try:
            if response.status_code != httpx.codes.OK:
                return not is_passing(response.status_code)
            waiting.begin_events(monotonic())
            for line in response.iter_lines():
                update = waiting.read(line, monotonic())
                if update is not None:
                    self._on_update(update)
                if waiting.has_begun:
                    return True
        finally:
            response.close()
        return False

    def _fetch(self, waiting: Waiting) -> httpx.Response:
        while True:
            try:
                return self._transport.handle_request(waiting.response())
            except httpx.ReadTimeout:
                raise
            except httpx.TransportError:
                if not self._pause(waiting):
                    raise

    def _pause(self, waiting: Waiting) -> bool:
        """Wait before something is asked for again; return whether it may be."""
        if self._is_closed:
            raise CLOSED.exception()
        cancellation = present()
        if cancellation is not None:
            cancellation.check()
        pause_s = waiting.broken(monotonic())
        if pause_s is None:
            return False
        time.sleep(pause_s)
        return True

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
