"""The functions, versions, keys and accounts of the store, in memory, for look-ups per request.

Fed with changes in any order: a version may come before the record of its function. Look-ups are
dictionary look-ups; what they would compute each time is computed when a change comes.
"""

from gateway.domain.model import (
    INVOCABLE,
    Account,
    AccountRemoved,
    ApiKey,
    Change,
    Client,
    ClientRemoved,
    Function,
    FunctionRemoved,
    FunctionVersion,
    KeyRemoved,
    VersionRemoved,
)


class FunctionEntry:
    """One function: its versions, and what routing asks of them.

    ``account`` is the owner of every version, ``None`` if they differ, which nothing should write.
    ``invocable`` are the versions whose state takes invocations.
    """

    __slots__ = ("account", "function", "invocable", "versions")

    def __init__(self) -> None:
        self.function: Function | None = None
        self.versions: dict[str, FunctionVersion] = {}
        self.invocable: tuple[FunctionVersion, ...] = ()
        self.account: str | None = None

    def is_empty(self) -> bool:
        return self.function is None and not self.versions

    def refresh(self) -> None:
        """Compute again what follows from the versions."""
        versions = self.versions.values()
        self.invocable = tuple(version for version in versions if version.state in INVOCABLE)
        accounts = {version.account for version in versions}
        self.account = accounts.pop() if len(accounts) == 1 else None


class ReadModel:
    """The store's contents as one gateway process sees them.

    Keys that are revoked are not found by their digest; keys that are expired are, because only
    the caller knows the time.
    """

    __slots__ = ("_accounts", "_clients", "_digest_of", "_entries", "_keys")

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._clients: dict[str, Client] = {}
        self._entries: dict[str, FunctionEntry] = {}
        self._keys: dict[bytes, ApiKey] = {}
        self._digest_of: dict[str, bytes] = {}

    def function(self, function_id: str) -> FunctionEntry | None:
        """Return the function with this id, canonical lower case; `None` when there is none."""
        return self._entries.get(function_id)

    def key(self, digest: bytes) -> ApiKey | None:
        """Return the key whose SHA-256 is ``digest`` unless it is revoked or unknown."""
        return self._keys.get(digest)

    def account(self, nca_id: str) -> Account | None:
        return self._accounts.get(nca_id)

    def client(self, client_id: str) -> Client | None:
        """Return the client with this id, the subject of a JWT."""
        return self._clients.get(client_id)

    def has_keys(self, account: str) -> bool:
        """Whether some key of ``account`` can be used. Looks at every key."""
        return any(key.account == account for key in self._keys.values())

    @property
    def function_count(self) -> int:
        return len(self._entries)

    def apply(self, change: Change) -> None:
        """Take one change of the store. Applying the same one again changes nothing.

        Changes of other kinds are somebody else's.
        """
        match change:
            case FunctionVersion():
                entry = self._entry(change.function_id)
                entry.versions[change.version_id] = change
                entry.refresh()
            case Function():
                self._entry(change.function_id).function = change
            case ApiKey():
                self._forget_key(change.key_id)
                if not change.is_revoked:
                    self._keys[change.digest] = change
                    self._digest_of[change.key_id] = change.digest
            case VersionRemoved():
                self._remove_version(change)
            case FunctionRemoved():
                entry = self._entry(change.function_id)
                entry.function = None
                self._drop_if_empty(change.function_id, entry)
            case KeyRemoved():
                self._forget_key(change.key_id)
            case _:
                self._apply_account(change)

    def _apply_account(self, change: Change) -> None:
        match change:
            case Account():
                self._accounts[change.nca_id] = change
            case AccountRemoved():
                self._accounts.pop(change.nca_id, None)
            case Client():
                self._clients[change.client_id] = change
            case ClientRemoved():
                self._clients.pop(change.client_id, None)

    def _entry(self, function_id: str) -> FunctionEntry:
        entry = self._entries.get(function_id)
        if entry is None:
            entry = self._entries[function_id] = FunctionEntry()
        return entry

    def _remove_version(self, removed: VersionRemoved) -> None:
        entry = self._entry(removed.function_id)
        entry.versions.pop(removed.version_id, None)
        entry.refresh()
        self._drop_if_empty(removed.function_id, entry)

    def _drop_if_empty(self, function_id: str, entry: FunctionEntry) -> None:
        if entry.is_empty():
            del self._entries[function_id]

    def _forget_key(self, key_id: str) -> None:
        digest = self._digest_of.pop(key_id, None)
        key = None if digest is None else self._keys.get(digest)
        if key is not None and key.key_id == key_id:
            del self._keys[key.digest]
