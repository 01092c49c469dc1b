"""A BentoML service as its quickstart shows it, with a stream and a file."""

from collections.abc import AsyncGenerator
from pathlib import Path

import bentoml


@bentoml.service
class Summary:
    @bentoml.api
    def summarize(self, text: str) -> str:
        return text.split(".", maxsplit=1)[0]

    @bentoml.api
    async def words(self, text: str) -> AsyncGenerator[str, None]:
        for word in text.split():
            yield word

    @bentoml.api
    def size(self, file: Path) -> int:
        return len(file.read_bytes())
