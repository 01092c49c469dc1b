"""Documents that the first start of an installation writes and every later start finds.

They are the digest of the bootstrap secret, the public half of the key that signs tokens, and the
fingerprint of the master key: a process with another key file stops instead of sealing secrets that
other processes cannot open.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

import orjson

from gateway.api.secrets.master_key import MasterKeyError
from gateway.auth.bootstrap import NAME, digest_of, document, new_secret, was_replaced
from gateway.auth.signing import SIGNING_PREFIX, TokenSigner, fingerprint
from gateway.domain.documents import SCHEMA, read
from gateway.errors import Conflict

BUCKET = "meta"
MASTER_NAME = "master-key"


class DocumentStore(Protocol):
    """Documents that are not records (`gateway.store.records.Store`).

    Every method may raise `StoreUnavailable`; a write raises `Conflict` if the stored revision is
    not the given one.
    """

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int: ...

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None: ...


async def begin(
    store: DocumentStore, master: bytes, signer: TokenSigner, random32: bytes, at: str
) -> str | None:
    """Write the documents that are missing; return the bootstrap secret if it was made now.

    Show it to the operator who starts the gateway: it cannot be read again. ``at`` is the time as
    ISO 8601. Of several processes that start at once, one gets the secret. Raises `MasterKeyError`
    if the secrets in the store are sealed with another master key.
    """
    await _begin_signing(store, master, signer, at)
    secret = new_secret(random32)
    return secret if await _create(store, NAME, document(secret, at)) else None


class Adoption(Enum):
    """What became of a bootstrap secret that the settings give."""

    FIRST = "first"
    """It is the first one of the store."""
    SAME = "same"
    """The store has it already."""
    REPLACED = "replaced"
    """It took the place of another one."""
    REFUSED = "refused"
    """It is one that was replaced before, and is not accepted."""


async def begin_with(
    store: DocumentStore, master: bytes, signer: TokenSigner, secret: str, at: str
) -> Adoption:
    """Write the documents that are missing, with a bootstrap secret that is given.

    It takes the place of another one, unless that one took its own place before: a process that
    starts with outdated settings changes nothing. Raises `MasterKeyError` as `begin` does.
    """
    await _begin_signing(store, master, signer, at)
    if await _create(store, NAME, document(secret, at)):
        return Adoption.FIRST
    while True:
        found, revision = await _secret_document(store)
        if found.get("digest") == digest_of(secret):
            return Adoption.SAME
        if was_replaced(secret, found):
            return Adoption.REFUSED
        if await _replace(store, document(secret, at, found), revision):
            return Adoption.REPLACED


async def reset(store: DocumentStore, random32: bytes, at: str) -> str:
    """Replace the bootstrap secret by a new one, and return it."""
    secret = new_secret(random32)
    while True:
        found, revision = await _secret_document(store)
        if await _replace(store, document(secret, at, found), revision):
            return secret


async def _secret_document(store: DocumentStore) -> tuple[Mapping[str, object], int]:
    """Return the record of the bootstrap secret, empty if there is none or it is unreadable."""
    found = await store.get_raw(BUCKET, NAME)
    if found is None:
        return {}, 0
    try:
        parsed = orjson.loads(found[0])
    except orjson.JSONDecodeError:
        parsed = None
    return (parsed if isinstance(parsed, dict) else {}), found[1]


async def _replace(store: DocumentStore, described: dict[str, object], revision: int) -> bool:
    """Write the record in place of the one read; return false if another was written meanwhile."""
    try:
        await store.put_raw(BUCKET, NAME, orjson.dumps(described), revision)
    except Conflict:
        return False
    return True


async def _begin_signing(store: DocumentStore, master: bytes, signer: TokenSigner, at: str) -> None:
    await _check_master(store, master, at)
    await _create(store, f"{SIGNING_PREFIX}{signer.kid}", signer.document(at))


async def _check_master(store: DocumentStore, master: bytes, at: str) -> None:
    """Write the fingerprint of the master key. Raises `MasterKeyError` if there is another."""
    own = fingerprint(master)
    described = {"schema": SCHEMA, "kind": MASTER_NAME, "fingerprint": own, "created_at": at}
    if await _create(store, MASTER_NAME, described):
        return
    found = await store.get_raw(BUCKET, MASTER_NAME)
    if found is not None and read(found[0]).text("fingerprint") != own:
        raise MasterKeyError(
            "the store's secrets are sealed with another master key: copy the key file from where "
            "the gateway was started first"
        )


async def _create(store: DocumentStore, name: str, described: dict[str, object]) -> bool:
    """Write a document unless it exists; return whether it was written."""
    try:
        await store.put_raw(BUCKET, name, orjson.dumps(described), 0)
    except Conflict:
        return False
    return True
