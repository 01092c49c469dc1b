"""What every object store does. `gateway.objects.open` chooses the backend.

An object is a body of any length with a content type and short metadata. It is visible whole or not
at all. No key may be a folder of another: of ``a`` and ``a/b``, MinIO lists only ``a``. Every
method may raise `gateway.errors.StoreUnavailable`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Protocol, Self

DATA_BYTES = 256 * 1024
"""The most that a reader yields at a time, and that is read from or written to a file."""
MAX_KEY_CHARS = 512
UNAVAILABLE = "The object store cannot be read or written now"
"""What callers get to know of a `gateway.errors.StoreUnavailable`; its cause is for the log."""
NO_META: Mapping[str, str] = MappingProxyType({})

_KEY = re.compile(r"[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*\Z")


class ObjectNotFound(KeyError):
    """There is no object with this key."""


class ObjectTooLarge(Exception):
    """A body is longer than it may be; nothing of it was stored."""


class ObjectInfo(NamedTuple):
    """What is known of an object without reading its body.

    ``modified_at`` is in Unix seconds. The names of ``meta`` are in lower case, its values text
    without line breaks. ``etag`` changes with the body; it is without quotes. In a listing
    ``content_type`` and ``meta`` may be empty: use `ObjectStore.stat`.
    """

    key: str
    size: int
    content_type: str
    modified_at: float
    meta: Mapping[str, str]
    etag: str = ""


class ObjectReader(Protocol):
    """The body of one object, or one range of it: pieces of at most `DATA_BYTES`.

    A context manager, which must be left so that the file or connection is closed. ``info.size`` is
    the length of the whole object.
    """

    @property
    def info(self) -> ObjectInfo: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...


class ObjectStore(ABC):
    """One backend."""

    @abstractmethod
    async def open(self) -> None:
        """Make it usable. Raises `gateway.errors.StoreUnavailable` if it cannot be."""

    @abstractmethod
    async def close(self) -> None:
        """Release connections and threads."""

    @abstractmethod
    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None,
        content_type: str,
        meta: Mapping[str, str] = NO_META,
    ) -> None:
        """Write the object whole, in place of an older one; nothing of it if ``chunks`` raises.

        ``size`` is the length of all chunks, `None` if it is not known. Raises `ValueError` if it
        turns out to be another one.
        """

    @abstractmethod
    async def put_bytes(
        self, key: str, data: bytes, *, content_type: str, meta: Mapping[str, str] = NO_META
    ) -> None:
        """Write a short object; cheaper than `put`."""

    async def put_batch(self, objects: Sequence[tuple[str, bytes]], *, content_type: str) -> None:
        """Write several short objects, keys and bodies; cheaper than `put_bytes` for each.

        If it raises, some of them may be written.
        """
        for key, data in objects:
            await self.put_bytes(key, data, content_type=content_type)

    @abstractmethod
    async def get(self, key: str, first: int = 0, last: int | None = None) -> ObjectReader:
        """Open the object from byte ``first`` to byte ``last`` (inclusive; `None`: to its end).

        Raises `ObjectNotFound`.
        """

    @abstractmethod
    async def stat(self, key: str) -> ObjectInfo | None:
        """Look at the object; `None` if there is none."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove the object; absent is fine."""

    @abstractmethod
    def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the objects whose keys start with ``prefix`` and follow ``after``, sorted.

        ``prefix`` is empty or ends with ``/``: no account's objects are found under another's.
        """

    @abstractmethod
    async def download_url(
        self, key: str, expires_at: float, *, base_url: str = "", file_name: str = ""
    ) -> str:
        """Return a URL that reads the object (GET, HEAD, Range) until ``expires_at``, Unix seconds.

        ``base_url`` is ``scheme://authority`` at which the caller reaches the gateway; the local
        backend uses it unless `objects.url` is set. With ``file_name`` the response says
        ``Content-Disposition: attachment``.
        """

    @abstractmethod
    async def upload_url(
        self,
        key: str,
        expires_at: float,
        *,
        content_type: str,
        max_bytes: int,
        meta: Mapping[str, str] = NO_META,
        base_url: str = "",
    ) -> str:
        """Return a URL to which the object can be PUT until ``expires_at``, Unix seconds.

        The PUT must say this content type, and each ``meta`` as ``x-amz-meta-NAME``.
        """


def check_key(key: str) -> None:
    """Raise `ValueError` unless ``key`` is a path of names of ``[A-Za-z0-9._=-]``, not ``..``."""
    parts = key.split("/")
    if len(key) > MAX_KEY_CHARS or not _KEY.match(key) or "." in parts or ".." in parts:
        raise ValueError(f"not a key of an object: {key[:80]!r}")


def check_prefix(prefix: str) -> None:
    """Raise `ValueError` unless ``prefix`` is empty, or a key and ``/``."""
    if prefix:
        check_key(prefix.removesuffix("/"))
        if not prefix.endswith("/"):
            raise ValueError("the prefix must end with /")


def check_size(announced: int | None, written: int) -> None:
    """Raise `ValueError` if a body was announced with another length."""
    if announced not in (None, written):
        raise ValueError(f"{written} bytes were written, {announced} announced")
