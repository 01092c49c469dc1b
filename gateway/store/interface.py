"""What differs between the backends of the store: feeds, shared numbers and claims.

`gateway.store.records.Store` is the whole interface of a backend; `gateway.store.open` chooses one.
"""

from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """The latest document of one name; ``data`` is `None` if it was deleted."""

    name: str
    data: bytes | None
    revision: int


class Feed(Protocol):
    """The contents of one bucket, then every change, in order, until it breaks.

    It was made with two functions: ``on_entry`` gets the latest entry of every name, then each
    change; its revisions ascend. ``on_loaded`` is called once, after the last entry that existed
    at the start, with the revision up to which all has been delivered. Neither is called after the
    feed has broken.
    """

    async def follow(self) -> str:
        """Wait for the connection, then deliver until the feed breaks; return the reason.

        It breaks rather than miss a change: with the connection, with a server that is silent, and
        with data that the server has lost. Raises `gateway.errors.StoreUnavailable`.
        """

    def break_off(self, reason: str = "disconnected") -> None:
        """Break the feed: it delivers nothing more."""


class SharedNumbers(Protocol):
    """Short documents that all gateway processes replace many times a second.

    Every method may raise `gateway.errors.StoreUnavailable`.
    """

    async def read(self, name: str) -> tuple[bytes, int] | None:
        """Return the document called ``name`` and its revision; `None` if there is none."""

    async def replace(self, name: str, document: bytes, revision: int) -> int:
        """Write in place of ``revision``, 0 for none; return the new revision.

        Raises `gateway.errors.Conflict` if another process has written in between, or the document
        is lost.
        """


class ClaimStore(Protocol):
    """Short documents by which one of several callers gets what all want; kept for a fixed time.

    They are as durable as records, and as many as an account may have at a time: a further one is
    refused, and none is forgotten before its time. Names consist of letters, digits, ``-`` and
    ``_``. Every method may raise `gateway.errors.StoreUnavailable`: then a write may have happened.
    """

    async def make(self, account: str, name: str, document: bytes) -> int:
        """Write a document that does not exist; return its revision.

        Raises `gateway.errors.Conflict` if it exists, and `gateway.errors.TooManyKeys`.
        """

    async def read(self, account: str, name: str) -> tuple[bytes, int] | None:
        """Return a document and its revision; `None` if there is none."""

    async def release(self, account: str, name: str, revision: int) -> None:
        """Let the name be claimed anew, unless its document has another revision."""


MAX_SHARED_NAMES = 100_000
"""Names of shared numbers that are kept; a further one replaces the one that was written longest
ago."""
MARKER_S = 7 * 86_400
"""How long it is known of a name that it was deleted."""
