"""Object stores and signed URLs for tests."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from gateway.errors import Conflict
from gateway.objects.assets import AssetLimits, Assets
from gateway.objects.interface import ObjectStore
from gateway.objects.local import LocalObjects
from gateway.objects.signed_urls import SharedKey, UrlSigner
from runtime.ids import new_uuid

LIMITS = AssetLimits(10_000_000, 1000, 100_000_000, 86_400.0)
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


def signer(
    document: KeyDocument | None = None, clock: Callable[[], float] | None = None
) -> UrlSigner:
    """Return a signer whose key is made at the first use."""
    document = document or KeyDocument()
    key = SharedKey(document.read, document.create, lambda size: b"k" * size)
    return UrlSigner(key, clock or Clock(), BASE_URL)


def local_objects(folder: Path, urls: UrlSigner | None = None) -> LocalObjects:
    """Return a store below ``folder`` that is not open yet."""
    return LocalObjects(folder, urls or signer())


def assets_in(
    store: ObjectStore, clock: Callable[[], float] | None = None, **limits: int
) -> Assets:
    """Return the assets in ``store``, with other ``limits`` than usual."""
    return Assets(store, LIMITS._replace(**limits), clock or time.time, new_uuid)


def no_assets() -> Assets:
    """Return assets in a store that is never used."""
    return assets_in(local_objects(Path("/nonexistent")))


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
