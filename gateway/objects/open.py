"""Chooses the backend of the object store."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.objects.interface import ObjectStore
from gateway.objects.local import LocalObjects
from gateway.objects.signed_urls import UrlSigner

if TYPE_CHECKING:
    from gateway.objects.s3 import S3Options


class LocalOptions(NamedTuple):
    """The folder of the local backend."""

    folder: Path


def make_object_store(options: "LocalOptions | S3Options", signer: UrlSigner) -> ObjectStore:
    """Return the configured backend, not open yet. ``signer`` is used by the local one."""
    if isinstance(options, LocalOptions):
        return LocalObjects(options.folder, signer)
    # Imported here: it takes 40 MiB.
    from gateway.objects.s3 import S3Objects  # noqa: PLC0415

    return S3Objects(options)
