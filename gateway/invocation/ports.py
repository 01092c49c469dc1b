"""What an invocation may do to the world; implemented by attach, by the app and by the tests.

The client's side is `http1.stream.ResponseWriter`, the queue's `queueing.interface.FunctionQueue`.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.invocation.machine import Invocation


class WorkerPost(Protocol):
    """The POST attach through which one worker delivers one response."""

    def pause_reading(self) -> None:
        """The client is slow: read no more of the response for now."""

    def resume_reading(self) -> None:
        """The client has caught up."""

    def taken(self) -> None:
        """The client has the whole response: answer the worker 200."""

    def dismiss(self) -> None:
        """Nobody waits for the response any more: answer early, so that the worker stops."""

    def refuse(self, status: int, detail: str) -> None:
        """What the worker sent cannot be given to the client."""


class Desk(Protocol):
    """Where the process keeps its live invocations."""

    def rearm(self, invocation: "Invocation") -> None:
        """The response token may be used once more: its POST broke before a response head."""

    def finished(self, invocation: "Invocation") -> None:
        """The invocation is over, its outcome and times are set. Called exactly once."""
