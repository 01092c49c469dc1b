"""In-memory functions, versions, API keys and accounts of the store, for look-ups per request.

Changes are applied in any order: a version may come before the record of its function. A look-up is
one dictionary access; what follows from the records is computed when a change is applied.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import chain, islice
from typing import NamedTuple

from gateway.domain.model import (
    INVOCABLE,
    SERVING,
    Account,
    AccountKey,
    ApiKey,
    ApiKeyKey,
    Change,
    Client,
    ClientKey,
    Function,
    FunctionKey,
    FunctionVersion,
    Removed,
    VersionKey,
)

MAX_NAMESAKES = 64
"""Functions of one name that a look-up by name considers."""


class Sight(Enum):
    """Why an account sees a function. Look-ups by name take them in this order."""

    OWNED = 1
    SHARED = 2
    PUBLIC = 3


class NamedAs(NamedTuple):
    """A name of a function, and an account that sees it; no account stands for all."""

    sight: Sight
    account: str
    name: str


class FunctionEntry:
    """One function with its versions, and what routing needs of them.

    ``account`` is the owner of every version, `None` if the owners differ, which no writer should
    cause. ``invocable`` are the versions among which a call that names none is divided. ``seen_as``
    are its names, with the accounts that see it.
    """

    __slots__ = ("account", "function", "invocable", "seen_as", "versions")

    def __init__(self) -> None:
        self.function: Function | None = None
        self.seen_as: tuple[NamedAs, ...] = ()
        self.versions: dict[str, FunctionVersion] = {}
        self.invocable: tuple[FunctionVersion, ...] = ()
        self.account: str | None = None

    def is_empty(self) -> bool:
        return self.function is None and not self.versions

    def names(self) -> tuple[NamedAs, ...]:
        """Compute what ``seen_as`` is to be, each once."""
        function = self.function
        shared_with = frozenset[str]() if function is None else function.shared_with
        is_public = function is not None and function.is_public
        found: dict[NamedAs, None] = {}
        for version in self.versions.values():
            found[NamedAs(Sight.OWNED, version.account, version.name)] = None
            for account in version.shared_with | shared_with:
                found[NamedAs(Sight.SHARED, account, version.name)] = None
            if version.is_public or is_public:
                found[NamedAs(Sight.PUBLIC, "", version.name)] = None
        return tuple(found)

    def refresh(self) -> None:
        """Compute ``invocable`` and ``account`` from the versions."""
        versions = self.versions.values()
        self.invocable = find_invocable(versions)
        accounts = {version.account for version in versions}
        self.account = accounts.pop() if len(accounts) == 1 else None


def find_invocable(versions: Iterable[FunctionVersion]) -> tuple[FunctionVersion, ...]:
    """Return those that serve; if none does, those whose instances are awaited."""
    invocable = tuple(version for version in versions if version.state in INVOCABLE)
    return tuple(version for version in invocable if version.state in SERVING) or invocable


class Names:
    """The functions that one account sees, by name; iterates over the names."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        # Nearly every name is that of one function, and a text takes less than a collection of one.
        self._ids: dict[str, str | dict[str, None]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def ids(self, name: str) -> Iterable[str]:
        found = self._ids.get(name, ())
        return (found,) if isinstance(found, str) else found

    def add(self, name: str, function_id: str) -> None:
        found = self._ids.get(name)
        if found is None:
            self._ids[name] = function_id
        elif isinstance(found, str):
            self._ids[name] = {found: None, function_id: None}
        else:
            found[function_id] = None

    def remove(self, name: str, function_id: str) -> None:
        found = self._ids[name]
        if isinstance(found, str) or len(found) == 1:
            del self._ids[name]
        else:
            del found[function_id]


class ReadModel:
    """The contents of the store as one gateway process sees them.

    A revoked API key is not found; an expired one is, because only the caller knows the time.
    ``changes`` counts what was applied: as long as it is the same, so is every answer.
    """

    __slots__ = ("_accounts", "_clients", "_digest_of", "_entries", "_keys", "_names", "changes")

    def __init__(self) -> None:
        self.changes = 0
        self._accounts: dict[str, Account] = {}
        self._clients: dict[str, Client] = {}
        self._entries: dict[str, FunctionEntry] = {}
        self._names: dict[tuple[Sight, str], Names] = {}
        self._keys: dict[bytes, ApiKey] = {}
        self._digest_of: dict[str, bytes] = {}

    def function(self, function_id: str) -> FunctionEntry | None:
        """Return the function with this id, in canonical lower case; `None` if there is none."""
        return self._entries.get(function_id)

    def named(self, account: str, name: str) -> list[str]:
        """Return the ids of functions that ``account`` sees, and that have a version with ``name``.

        Each once, in the order of `Sight`, and not more than `MAX_NAMESAKES`.
        """
        ids = chain.from_iterable(names.ids(name) for names in self._seen_by(account))
        return list(dict.fromkeys(islice(ids, MAX_NAMESAKES)))

    def names(self, account: str) -> list[str]:
        """Return the names of the functions that ``account`` sees, each once."""
        return list(dict.fromkeys(chain.from_iterable(self._seen_by(account))))

    def _seen_by(self, account: str) -> list[Names]:
        seers = (Sight.OWNED, account), (Sight.SHARED, account), (Sight.PUBLIC, "")
        return [self._names[seer] for seer in seers if seer in self._names]

    def key(self, digest: bytes) -> ApiKey | None:
        """Return the API key with this SHA-256 digest; `None` if it is unknown or revoked."""
        return self._keys.get(digest)

    def account(self, nca_id: str) -> Account | None:
        return self._accounts.get(nca_id)

    def client(self, client_id: str) -> Client | None:
        """Return the client with this id, which is the subject of a JWT."""
        return self._clients.get(client_id)

    def has_keys(self, account: str) -> bool:
        """Whether ``account`` has an API key that is not revoked. Iterates over all keys."""
        return any(key.account == account for key in self._keys.values())

    @property
    def function_count(self) -> int:
        return len(self._entries)

    def apply(self, change: Change) -> None:
        """Apply one change of the store. Applying a change twice has no further effect.

        Changes to other kinds of record are ignored.
        """
        self.changes += 1
        match change:
            case FunctionVersion():
                entry = self._entry(change.function_id)
                entry.versions[change.version_id] = change
                entry.refresh()
                self._index(change.function_id, entry)
            case Function():
                entry = self._entry(change.function_id)
                entry.function = change
                self._index(change.function_id, entry)
            case ApiKey():
                self._forget_key(change.key_id)
                if not change.is_revoked:
                    self._keys[change.digest] = change
                    self._digest_of[change.key_id] = change.digest
            case Removed(VersionKey(function_id, version_id)):
                self._remove_version(function_id, version_id)
            case Removed(FunctionKey(function_id)):
                entry = self._entry(function_id)
                entry.function = None
                self._index(function_id, entry)
                self._drop_if_empty(function_id, entry)
            case Removed(ApiKeyKey(key_id)):
                self._forget_key(key_id)
            case _:
                self._apply_account(change)

    def _apply_account(self, change: Change) -> None:
        match change:
            case Account():
                self._accounts[change.nca_id] = change
            case Removed(AccountKey(nca_id)):
                self._accounts.pop(nca_id, None)
            case Client():
                self._clients[change.client_id] = change
            case Removed(ClientKey(client_id)):
                self._clients.pop(client_id, None)

    def _entry(self, function_id: str) -> FunctionEntry:
        entry = self._entries.get(function_id)
        if entry is None:
            entry = self._entries[function_id] = FunctionEntry()
        return entry

    def _remove_version(self, function_id: str, version_id: str) -> None:
        entry = self._entry(function_id)
        entry.versions.pop(version_id, None)
        entry.refresh()
        self._index(function_id, entry)
        self._drop_if_empty(function_id, entry)

    def _index(self, function_id: str, entry: FunctionEntry) -> None:
        """Find the function by its present names, and no more by former ones."""
        before, entry.seen_as = entry.seen_as, entry.names()
        if before == entry.seen_as:
            return
        for sight, account, name in before:
            self._names[sight, account].remove(name, function_id)
        for sight, account, name in entry.seen_as:
            self._names.setdefault((sight, account), Names()).add(name, function_id)

    def _drop_if_empty(self, function_id: str, entry: FunctionEntry) -> None:
        if entry.is_empty():
            del self._entries[function_id]

    def _forget_key(self, key_id: str) -> None:
        digest = self._digest_of.pop(key_id, None)
        key = None if digest is None else self._keys.get(digest)
        if key is not None and key.key_id == key_id:
            del self._keys[key.digest]
