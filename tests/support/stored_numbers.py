"""The shared numbers of rate limits in memory, in place of NATS, as a test wants them to answer."""

import asyncio

from gateway.errors import Conflict, StoreUnavailable


class StoredNumbers:
    """A `gateway.store.interface.SharedNumbers`; ``answers`` is cleared to hold all responses."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[bytes, int]] = {}
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_away = False
        self.asked = 0

    async def read(self, name: str) -> tuple[bytes, int] | None:
        await self._answer()
        return self.documents.get(name)

    async def replace(self, name: str, document: bytes, revision: int) -> int:
        await self._answer()
        _, stored = self.documents.get(name, (b"", 0))
        if stored != revision:
            raise Conflict
        self.documents[name] = document, revision + 1
        return revision + 1

    async def _answer(self) -> None:
        self.asked += 1
        await self.answers.wait()
        if self.is_away:
            raise StoreUnavailable
