"""A request that nothing serves yet: what its client sends meanwhile is held."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from http1.stream import IGNORED, Headers, RequestStream

_STEP_BYTES = 65_536


class HeldRequest(ABC):
    """A `http1.stream.RequestStream` that passes everything on to the one that serves the request.

    Those who derive from it hold the body, and call `_pass_on` or `_give_up` once.
    """

    __slots__ = ("_is_complete", "_is_paused", "_left", "_owes_first_part_end", "_stream")

    def __init__(self, left: Callable[[], object]) -> None:
        """``left`` is called if the client leaves before anything serves the request."""
        self._left = left
        self._stream: RequestStream | None = None
        self._is_complete = self._is_paused = self._owes_first_part_end = False

    @abstractmethod
    def _hold(self, data: bytes) -> None:
        """Take the next bytes of the body; nothing serves the request yet."""

    @abstractmethod
    def _completed(self) -> None:
        """The request is complete; nothing serves it yet."""

    @abstractmethod
    def _drop(self) -> object:
        """Hold nothing any more; return what was held."""

    def _pass_on(self, stream: RequestStream, parts: Iterable[bytes]) -> None:
        """``stream`` serves the request: it gets ``parts`` of its body, and what follows."""
        self._stream = stream
        if self._is_paused:
            stream.pause_writing()
        for part in parts:
            stream.request_data(part)
        if self._is_complete:
            stream.request_end()
        elif self._owes_first_part_end:
            stream.first_part_end()

    def _give_up(self) -> None:
        """Nothing will serve the request: ignore what arrived and what is still to come."""
        self._drop()
        self._stream = IGNORED

    def request_data(self, data: bytes) -> None:
        if self._stream is None:
            self._hold(data)
        else:
            self._stream.request_data(data)

    def first_part_end(self) -> None:
        if self._stream is None:
            self._owes_first_part_end = True
        else:
            self._stream.first_part_end()

    def request_trailers(self, trailers: Headers) -> None:
        """Pass them on; those of a request that is held are dropped."""
        if self._stream is not None:
            self._stream.request_trailers(trailers)

    def request_end(self) -> None:
        if self._stream is None:
            self._is_complete = True
            self._completed()
        else:
            self._stream.request_end()

    def request_broken(self) -> None:
        if self._stream is None:
            self._give_up()
            self._left()
        else:
            self._stream.request_broken()

    def pause_writing(self) -> None:
        self._is_paused = True
        if self._stream is not None:
            self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._stream is not None:
            self._stream.resume_writing()


def in_steps(body: bytes | bytearray) -> Iterator[bytes]:
    """Yield a body in parts such as a connection brings them."""
    for at in range(0, len(body), _STEP_BYTES):
        yield bytes(body[at : at + _STEP_BYTES])
