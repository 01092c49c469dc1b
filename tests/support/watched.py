"""Models of the store that tests can wait on."""

import asyncio
from collections.abc import Callable

from gateway.domain.model import Change
from tests.support.waiting import PATIENCE_S


class Watched:
    """Put before a model: wakes whoever waits for a change."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self._changed = asyncio.Event()

    def apply(self, change: Change) -> None:
        super().apply(change)  # type: ignore[misc]  # the model's
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when ``condition`` holds, looked at after every change."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
