"""What the first start of all leaves in the store, and every later one finds there.

The bootstrap secret's digest; the fingerprint of the master key, so that a process with another key
file is told so instead of making secrets that nobody else can open; the public half of the key that
signs tokens.
"""

from typing import Protocol

import orjson

from gateway.api.secrets.master_key import MasterKeyError
from gateway.auth.bootstrap import NAME, document, new_secret
from gateway.auth.signing import SIGNING_PREFIX, TokenSigner, fingerprint
from gateway.domain.documents import SCHEMA, read
from gateway.errors import Conflict

BUCKET = "meta"
MASTER_NAME = "master-key"


class Place(Protocol):
    """The store's documents that are no records (`gateway.store.nats_kv.Store`).

    Every call may raise `StoreUnavailable`; writes raise `Conflict` when the revision is another.
    """

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int: ...

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None: ...


async def begin(
    place: Place, master: bytes, signer: TokenSigner, random32: bytes, at: str
) -> str | None:
    """Make what is not there yet; return the bootstrap secret if it was made now.

    It is to be shown to whoever starts the gateway: nobody can read it again. ``at`` is the time
    as ISO 8601. Of several processes that start at once, one gets the secret. Raises
    `MasterKeyError` when the store's secrets are sealed with another master key.
    """
    await _claim(place, master, at)
    await _make(place, f"{SIGNING_PREFIX}{signer.kid}", signer.document(at))
    secret = new_secret(random32)
    return secret if await _make(place, NAME, document(secret, at)) else None


async def reset(place: Place, random32: bytes, at: str) -> str:
    """Make another bootstrap secret in place of the one that was lost, and return it."""
    secret = new_secret(random32)
    await place.put_raw(BUCKET, NAME, orjson.dumps(document(secret, at)))
    return secret


async def _claim(place: Place, master: bytes, at: str) -> None:
    ours = fingerprint(master)
    described = {"schema": SCHEMA, "kind": MASTER_NAME, "fingerprint": ours, "created_at": at}
    if await _make(place, MASTER_NAME, described):
        return
    found = await place.get_raw(BUCKET, MASTER_NAME)
    if found is not None and read(found[0]).text("fingerprint") != ours:
        raise MasterKeyError(
            "the store's secrets are sealed with another master key: copy the key file from where "
            "the gateway was started first"
        )


async def _make(place: Place, name: str, described: dict[str, object]) -> bool:
    """Write a document unless there is one; return whether it was written."""
    try:
        await place.put_raw(BUCKET, name, orjson.dumps(described), 0)
    except Conflict:
        return False
    return True
