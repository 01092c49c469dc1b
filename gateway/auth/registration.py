"""Registration tokens: with one, workers that others start register as instances of one version.

A token is signed as the gateway's others are and may be used by many workers. Its record, in the
bucket ``meta`` as ``registration.<versionId>.<tokenId>``, is what can be revoked and listed: a
token without a record, or with one that is revoked, registers nobody. The record of a revoked token
stays until the token expires, so that every process learns that it is revoked: workers that have
registered with it are then told to stop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import orjson

from gateway.auth.tokens import VersionToken
from gateway.domain.documents import SCHEMA, Document, RecordError, read
from gateway.errors import BadRequest, Forbidden, NotFound

BUCKET = "meta"
NAME_PREFIX = "registration."
MAX_TOKENS = 1000
"""Tokens of one account that have not expired; revoked ones count."""
_KIND = "registration"


class RegistrationEntry(Protocol):
    """An entry of a bucket: a name, its document if it has one, and its revision."""

    @property
    def name(self) -> str: ...

    @property
    def data(self) -> bytes | None: ...

    @property
    def revision(self) -> int: ...


class RegistrationRecords(Protocol):
    """The store (`gateway.store.records.Store`); may raise `StoreUnavailable` and `Conflict`."""

    async def get_raw(self, bucket: str, name: str) -> tuple[bytes, int] | None: ...

    async def put_raw(
        self, bucket: str, name: str, data: bytes, revision: int | None = None
    ) -> int: ...

    async def delete_raw(self, bucket: str, name: str, revision: int | None = None) -> int: ...

    async def entries(self, bucket: str) -> Sequence[RegistrationEntry]: ...


@dataclass(frozen=True, slots=True)
class RegistrationToken:
    """What is stored of a registration token; the token itself is not. Times are Unix seconds."""

    token_id: str
    account: str
    function_id: str
    version_id: str
    created_at: int
    expires_at: int
    is_revoked: bool = False

    @property
    def name(self) -> str:
        return f"{NAME_PREFIX}{self.version_id}.{self.token_id}"

    def encode(self) -> bytes:
        """Return the document of the record."""
        return orjson.dumps(
            {
                "schema": SCHEMA,
                "kind": _KIND,
                "token_id": self.token_id,
                "account": self.account,
                "function_id": self.function_id,
                "version_id": self.version_id,
                "created_at": self.created_at,
                "expires_at": self.expires_at,
                "is_revoked": self.is_revoked,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the record of a document. Raises `RecordError`."""
        document: Document = read(data)
        return cls(
            token_id=document.text("token_id"),
            account=document.text("account"),
            function_id=document.uuid("function_id"),
            version_id=document.uuid("version_id"),
            created_at=document.number("created_at"),
            expires_at=document.number("expires_at"),
            is_revoked=document.flag("is_revoked"),
        )


class Registrations:
    """The records of registration tokens. Every method may raise `StoreUnavailable`.

    `apply` takes the entries of the bucket ``meta``, so that `is_revoked` needs no read.
    """

    def __init__(self, store: RegistrationRecords, clock: Callable[[], float]) -> None:
        """``clock`` returns Unix seconds."""
        self._store = store
        self._clock = clock
        self._revoked: dict[str, str] = {}

    def apply(self, name: str, data: bytes | None) -> None:
        """Apply one entry of ``meta``; others are ignored. Raises `RecordError`."""
        if not name.startswith(NAME_PREFIX):
            return
        self._revoked.pop(name, None)
        if data is not None:
            token = RegistrationToken.decode(data)
            if token.is_revoked:
                self._revoked[name] = token.token_id

    def is_revoked(self, version_id: str, token_id: str) -> bool:
        """Whether this process knows that the token was revoked."""
        return f"{NAME_PREFIX}{version_id}.{token_id}" in self._revoked

    async def add(self, token: RegistrationToken) -> None:
        """Store the record of a new token, and delete those of the account that have expired.

        Raises `BadRequest` if the account has `MAX_TOKENS`.
        """
        kept, now = 0, self._clock()
        for found in await self._all(token.account):
            if found.expires_at > now:
                kept += 1
            else:
                await self._store.delete_raw(BUCKET, found.name)
        if kept >= MAX_TOKENS:
            raise BadRequest(f"The account has {MAX_TOKENS} registration tokens that are not over")
        await self._store.put_raw(BUCKET, token.name, token.encode(), 0)

    async def of(self, account: str) -> list[RegistrationToken]:
        """Return the tokens of ``account`` that are valid, oldest first."""
        now = self._clock()
        found = [one for one in await self._all(account) if one.expires_at > now]
        valid = [one for one in found if not one.is_revoked]
        return sorted(valid, key=lambda one: (one.created_at, one.token_id))

    async def revoke(self, account: str, token_id: str) -> RegistrationToken:
        """Revoke a token for good. Raises `NotFound` for one that the account does not have."""
        for token in await self._all(account):
            if token.token_id == token_id:
                revoked = replace(token, is_revoked=True)
                # Nothing but this changes a record: the last writer writes the same.
                await self._store.put_raw(BUCKET, token.name, revoked.encode())
                return revoked
        raise NotFound("The account has no registration token with this id")

    async def delete_of(self, account: str, version_id: str) -> None:
        """Delete the tokens of a version that was deleted; they count no more."""
        for token in await self._all(account):
            if token.version_id == version_id:
                await self._store.delete_raw(BUCKET, token.name)

    async def check(self, token: VersionToken) -> None:
        """Raise `Forbidden` unless the token has a record that is not revoked."""
        name = f"{NAME_PREFIX}{token.version_id}.{token.subject}"
        found = await self._store.get_raw(BUCKET, name)
        try:
            stored = None if found is None else RegistrationToken.decode(found[0])
        except RecordError as error:
            raise Forbidden("The registration token cannot be checked") from error
        if stored is None or stored.is_revoked or stored.account != token.account:
            raise Forbidden("The registration token was revoked")

    async def _all(self, account: str) -> list[RegistrationToken]:
        found = []
        for entry in await self._store.entries(BUCKET):
            if entry.data is None or not entry.name.startswith(NAME_PREFIX):
                continue
            try:
                token = RegistrationToken.decode(entry.data)
            except RecordError:
                continue
            if token.account == account:
                found.append(token)
        return found
