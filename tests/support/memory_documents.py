"""Documents of a store that is this process's memory."""

from gateway.errors import Conflict, StoreUnavailable


class MemoryDocuments:
    """A `gateway.webhooks.records.Documents`; every call fails while ``is_away``."""

    def __init__(self) -> None:
        self.is_away = False
        self._documents: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._revision = 0

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int:
        self._check(bucket, name, revision)
        self._revision += 1
        self._documents[bucket, name] = data, self._revision
        return self._revision

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None:
        if self.is_away:
            raise StoreUnavailable
        return self._documents.get((bucket, name))

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int:
        self._check(bucket, name, revision)
        self._documents.pop((bucket, name), None)
        self._revision += 1
        return self._revision

    def _check(self, bucket: str, name: str, revision: int | None) -> None:
        if self.is_away:
            raise StoreUnavailable
        stored = self._documents.get((bucket, name), (b"", 0))[1]
        if revision is not None and revision != stored:
            raise Conflict
