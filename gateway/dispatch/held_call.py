"""A call that is not decided yet: what its client sends meanwhile waits here."""

from collections.abc import Callable, Coroutine
from typing import Protocol

from gateway.errors import GatewayError
from http1.stream import IGNORED, Headers, RequestStream, ResponseWriter
from runtime.tasks import spawn


class BodyReader(Protocol):
    """Who wants to read a body without taking it."""

    def add(self, data: bytes) -> None:
        """The next bytes of the body."""


class HeldCall:
    """A `http1.stream.RequestStream` that passes everything on to the one that serves the call.

    Until the call is decided, no more of its body is read than what arrived already.
    """

    __slots__ = ("_data", "_is_complete", "_left", "_owes_first_part", "_stream")

    def __init__(self, left: Callable[[], object]) -> None:
        """``left`` is called if the client leaves before the call is decided."""
        self._left = left
        self._stream: RequestStream | None = None
        self._data: list[bytes] = []
        self._owes_first_part = False
        self._is_complete = False

    def wait(
        self,
        decision: Coroutine[None, None, None],
        client: ResponseWriter,
        serve: Callable[[], RequestStream],
        withdraw: Callable[[], None],
        refuse: Callable[[GatewayError], object],
    ) -> None:
        """Call ``serve`` if ``decision`` returns, ``refuse`` if it raises a `GatewayError`.

        If the client has left meanwhile, ``withdraw`` is called instead of ``serve``, and nothing
        instead of ``refuse``.
        """
        client.pause_reading()
        spawn(self._wait(decision, client, serve, withdraw, refuse), "held-call")

    async def _wait(
        self,
        decision: Coroutine[None, None, None],
        client: ResponseWriter,
        serve: Callable[[], RequestStream],
        withdraw: Callable[[], None],
        refuse: Callable[[GatewayError], object],
    ) -> None:
        try:
            await decision
            if self._stream is not None:
                withdraw()
                return
            # Nothing is read before this turn of the loop ends, and whoever serves may pause again.
            client.resume_reading()
            stream = serve()
        except GatewayError as error:
            if self._stream is None:
                self._drop()
                refuse(error)
            return
        self._pass_on(stream)
        if client.is_writing_paused():
            stream.pause_writing()

    def _drop(self) -> None:
        """Ignore what arrived and what is still to come: there is no call."""
        self._data.clear()
        self._stream = IGNORED

    def _pass_on(self, stream: RequestStream) -> None:
        """Deliver what has arrived to ``stream``, in order."""
        self._stream = stream
        data, self._data = self._data, []
        for part in data:
            stream.request_data(part)
        if self._owes_first_part:
            stream.first_part_end()
        if self._is_complete:
            stream.request_end()

    def add_to(self, body: BodyReader) -> bool:
        """Return whether the request is complete; only then ``body`` reads all of it."""
        if self._is_complete:
            for part in self._data:
                body.add(part)
        return self._is_complete

    def request_data(self, data: bytes) -> None:
        if self._stream is None:
            self._data.append(data)
        else:
            self._stream.request_data(data)

    def first_part_end(self) -> None:
        if self._stream is None:
            self._owes_first_part = True
        else:
            self._stream.first_part_end()

    def request_trailers(self, trailers: Headers) -> None:
        """Ignore them, as an invocation does."""

    def request_end(self) -> None:
        if self._stream is None:
            self._is_complete = True
        else:
            self._stream.request_end()

    def request_broken(self) -> None:
        if self._stream is None:
            self._drop()
            self._left()
        else:
            self._stream.request_broken()

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.pause_writing()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume_writing()
