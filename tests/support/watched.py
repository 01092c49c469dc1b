"""Models of the store that tests can wait on."""

from collections.abc import Callable

from gateway.domain.model import Change
from tests.support.waiting import Signal, until


class Watched:
    """Base class put before a model: reports each change to the tasks that wait in `until`."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self._changed = Signal()

    def apply(self, change: Change) -> None:
        super().apply(change)  # type: ignore[misc]  # defined by the model
        self._changed.notify()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` is true; it is evaluated again after every change."""
        await until(condition, changed=self._changed)
