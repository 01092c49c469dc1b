"""Object stores and signed URLs for tests."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from gateway.errors import Conflict
from gateway.objects.interface import ObjectStore
from gateway.objects.local import LocalObjects
from gateway.objects.signed_urls import SharedKey, UrlSigner

NOW = 1_700_000_000.0
BASE_URL = "http://gateway.example"


class KeyDocument:
    """The document that all processes share."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    async def read(self) -> tuple[bytes, int] | None:
        return None if self.data is None else (self.data, 1)

    async def create(self, data: bytes) -> int:
        if self.data is not None:
            raise Conflict
        self.data = data
        return 1


class Clock:
    """Unix seconds, as the test sets them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def signer(document: KeyDocument | None = None, clock: Clock | None = None) -> UrlSigner:
    """Return a signer whose key is made at the first use."""
    document = document or KeyDocument()
    key = SharedKey(document.read, document.create, lambda size: b"k" * size)
    return UrlSigner(key, clock or Clock(), BASE_URL)


def local_objects(folder: Path) -> LocalObjects:
    """Return a store below ``folder`` that is not open yet."""
    return LocalObjects(folder, signer())


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield ``parts``."""
    for part in parts:
        yield part


async def read_object(
    store: ObjectStore, key: str, first: int = 0, last: int | None = None
) -> bytes:
    """Return an object's body, or a range of it."""
    async with await store.get(key, first, last) as reader:
        return b"".join([piece async for piece in reader])


def files_below(folder: Path) -> Iterable[str]:
    """Return the paths of all files below ``folder``."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
