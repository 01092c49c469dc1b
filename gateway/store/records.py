"""The store as the rest of the gateway sees it: records, and documents that are none.

`Store` says what a backend provides and what follows from that for records. A write may be
conditional on the stored revision. A change that reads before it writes must be: then one of two
concurrent writers gets `Conflict` (`gateway.domain.compare_and_set`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from gateway.domain.compare_and_set import compare_and_set
from gateway.domain.model import (
    ApiKey,
    ApiKeyKey,
    Record,
    RecordError,
    RecordKey,
    VersionKey,
    encode,
)
from gateway.store.interface import ClaimStore, Entry, Feed, SharedNumbers
from gateway.store.names import KEYS, location_of, record_at


class Store(ABC):
    """Reads and writes records. Every method may raise `gateway.errors.StoreUnavailable`.

    Revisions of one bucket ascend; one is never given twice.
    """

    @abstractmethod
    async def open(self, timeout_s: float | None = None) -> None:
        """Connect, and keep trying; raise `StoreUnavailable` after ``timeout_s`` seconds.

        Raises it at once for options that cannot work. A connection that is lost later is opened
        again; meanwhile every call fails at once.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close for good. There are no buffered writes to lose."""

    @abstractmethod
    async def prepare(self, *buckets: str) -> None:
        """Make the buckets (all without an argument) that are not there; leave the others."""

    @abstractmethod
    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int:
        """Write a document that is not a record, as `put` does.

        ``name`` consists of letters, digits and ``-/_=.``.
        """

    @abstractmethod
    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None:
        """Return the document called ``name`` and its revision; `None` if there is none."""

    @abstractmethod
    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int:
        """Delete the document called ``name``, as `delete` does."""

    @abstractmethod
    async def entries(self, bucket: str) -> list[Entry]:
        """Return every entry that is in ``bucket`` now."""

    @abstractmethod
    async def latest_revision(self, bucket: str, kind: str) -> int:
        """Return the revision of the last write or deletion of a name that begins with ``kind.``.

        0 if no name does now and none was deleted within a week.
        """

    @abstractmethod
    async def deleted_version(self, version_id: str) -> VersionKey | None:
        """Return the key of a version that was deleted within a week, `None` for any other."""

    @abstractmethod
    def feed(
        self, bucket: str, on_entry: Callable[[Entry], None], on_loaded: Callable[[int], None]
    ) -> Feed:
        """Return a feed of ``bucket``, which begins when its `follow` is called."""

    @abstractmethod
    def shared_numbers(self, max_age_s: float) -> SharedNumbers:
        """Return the shared numbers, which are forgotten after ``max_age_s`` without a write."""

    @abstractmethod
    def claims(self, max_age_s: float, account_limit: int) -> ClaimStore:
        """Return the claims, which are kept for ``max_age_s``, ``account_limit`` of each account.

        On NATS both numbers are fixed when an account makes its first claim.
        """

    async def put(self, record: Record, revision: int | None = None) -> int:
        """Write a record and return its new revision.

        ``revision`` is the revision to replace, 0 for a record that must not exist yet, `None` for
        an unconditional write. Raises `gateway.errors.Conflict`.
        """
        return await self.put_raw(*location_of(record.key), encode(record), revision)

    async def get(self, key: RecordKey) -> tuple[Record, int] | None:
        """Return the record of ``key`` and its revision; `None` if there is none.

        Raises `RecordError` if the document cannot be read.
        """
        location = location_of(key)
        found = await self.get_raw(*location)
        if found is None:
            return None
        data, revision = found
        return record_at(*location, data), revision

    async def get_key(self, key_id: str) -> tuple[ApiKey, int] | None:
        """Return an API key and its revision; `None` if there is none. Raises `RecordError`."""
        found = await self.get(ApiKeyKey(key_id))
        if found is None:
            return None
        record, revision = found
        if not isinstance(record, ApiKey):
            raise RecordError("the document is of another kind")
        return record, revision

    async def delete(self, key: RecordKey, revision: int | None = None) -> int:
        """Delete a record, if it exists; return the revision of the deletion.

        Raises `gateway.errors.Conflict` if ``revision`` is given and is not the stored one.
        """
        return await self.delete_raw(*location_of(key), revision)

    async def list_keys(self, account: str | None = None) -> tuple[list[ApiKey], list[str]]:
        """Return API keys, oldest first, and the names of those that cannot be read.

        The keys of all accounts if ``account`` is `None`.
        """
        keys, unreadable = [], []
        for name, data, _ in await self.entries(KEYS):
            try:
                record = record_at(KEYS, name, data or b"")
            except RecordError:
                unreadable.append(name)
                continue
            if isinstance(record, ApiKey) and account in (None, record.account):
                keys.append(record)
        keys.sort(key=lambda key: (key.created_at, key.key_id))
        return keys, unreadable

    async def revoke_key(self, key_id: str) -> ApiKey | None:
        """Revoke an API key and return it; `None` if there is none with this id."""
        return await compare_and_set(
            lambda: self.get_key(key_id), lambda key: replace(key, is_revoked=True), self.put
        )
