"""Why a call failed, and whether its request may be sent again. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

import httpx


class Processing(Enum):
    """What the server did with the request of a call that failed."""

    POSSIBLE = auto()
    """It may have acted on it."""
    REFUSED = auto()
    """It has not: RST_STREAM with REFUSED_STREAM (RFC 9113 §8.7)."""
    LEFT_OUT = auto()
    """It has not: the stream is above the last one of a GOAWAY (RFC 9113 §6.8)."""


@dataclass(frozen=True, slots=True)
class CallFailure:
    """The end of a call without a whole response.

    ``error`` is what its reader gets, ``write_error`` what it gets while it sends the body. Each
    call raises an exception of its own: a shared one would collect the tracebacks of all threads.
    """

    error: type[httpx.TransportError]
    text: str
    processing: Processing = Processing.POSSIBLE
    write_error: type[httpx.TransportError] | None = None

    def exception(self, *, is_sending: bool = False) -> httpx.TransportError:
        """Return a new exception."""
        error = self.write_error if is_sending and self.write_error else self.error
        return error(self.text)


class CallFailed(Exception):
    """Carries a failure up to where it is decided whether the request is sent again."""

    def __init__(self, failure: CallFailure, *, is_sending: bool = False) -> None:
        super().__init__(failure.text)
        self.failure = failure
        self.is_sending = is_sending

    def exception(self) -> httpx.TransportError:
        """Return what the caller of the transport gets."""
        return self.failure.exception(is_sending=self.is_sending)


class Resends:
    """How often one request may still be sent again: only if it was not processed.

    Once after REFUSED_STREAM; three times after a GOAWAY, because a service that restarts process
    by process can send several. ``is_repeatable``: the body can be sent a second time.
    """

    def __init__(self, *, is_repeatable: bool) -> None:
        self._is_repeatable = is_repeatable
        self._left = {Processing.POSSIBLE: 0, Processing.REFUSED: 1, Processing.LEFT_OUT: 3}

    def take(self, failure: CallFailure) -> bool:
        """Whether the request may be sent again now; if so, one time less is left."""
        if not self._is_repeatable or self._left[failure.processing] == 0:
            return False
        self._left[failure.processing] -= 1
        return True
