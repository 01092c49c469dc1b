"""A call that is not decided yet: what its client sends meanwhile waits here."""

from collections.abc import Callable, Coroutine
from typing import Protocol

from gateway.errors import GatewayError
from http1.held_request import HeldRequest
from http1.stream import RequestStream, ResponseWriter
from runtime.tasks import spawn


class BodyReader(Protocol):
    """Who wants to read a body without taking it."""

    def add(self, data: bytes) -> None:
        """The next bytes of the body."""


class HeldCall(HeldRequest):
    """Until the call is decided, no more of its body is read than what arrived already."""

    __slots__ = ("_data",)

    def __init__(self, left: Callable[[], object]) -> None:
        """``left`` is called if the client leaves before the call is decided."""
        super().__init__(left)
        self._data: list[bytes] = []

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
                self._give_up()
                refuse(error)
            return
        self._pass_on(stream, self._drop())

    def add_to(self, body: BodyReader) -> bool:
        """Return whether the request is complete; only then ``body`` reads all of it."""
        if self._is_complete:
            for part in self._data:
                body.add(part)
        return self._is_complete

    def _hold(self, data: bytes) -> None:
        self._data.append(data)

    def _completed(self) -> None:
        """Wait on: the call is not decided yet."""

    def _drop(self) -> list[bytes]:
        held, self._data = self._data, []
        return held
