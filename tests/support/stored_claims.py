"""Claims in memory, in place of the store's, as a test wants them to answer."""

import asyncio

from gateway.errors import Conflict, StoreUnavailable, TooManyKeys


class StoredClaims:
    """A `gateway.store.interface.ClaimStore`.

    ``made`` counts the claims that were made. While ``is_away`` nothing is read or written.
    ``loses_replies``: what is written is, but the caller is not told. ``answers`` is cleared to
    hold all responses.
    """

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.limit = 100
        self.is_away = self.loses_replies = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.made = 0

    async def make(self, account: str, name: str, document: bytes) -> int:
        await self._answer()
        if (account, name) in self.documents:
            raise Conflict
        if len(self.documents) >= self.limit:
            raise TooManyKeys
        self.made += 1
        self.documents[account, name] = document, self.made
        if self.loses_replies:
            raise StoreUnavailable
        return self.made

    async def read(self, account: str, name: str) -> tuple[bytes, int] | None:
        await self._answer()
        return self.documents.get((account, name))

    async def release(self, account: str, name: str, revision: int) -> None:
        await self._answer()
        if self.documents.get((account, name), (b"", 0))[1] == revision:
            del self.documents[account, name]

    async def _answer(self) -> None:
        await self.answers.wait()
        if self.is_away:
            raise StoreUnavailable
