"""In-memory view of the store except API keys and secrets, for the API and the reconciler.

Routing needs less and has the `ReadModel`, which this module feeds: the catalog applies every
change, passes on what concerns routing, and keeps the rest. Details are kept as stored JSON, a
third of the size of the parsed object, and parsed at each read.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, cast

from gateway.domain.model import (
    EMPTY,
    Change,
    Deployment,
    DeploymentKey,
    DetailsKey,
    Function,
    FunctionKey,
    FunctionVersion,
    Instance,
    InstanceKey,
    Removed,
    VersionDetails,
    VersionKey,
    decode,
    encode,
)
from gateway.domain.parties import split_party
from gateway.domain.readmodel import FunctionEntry, ReadModel


class Visibility(Enum):
    """Why a caller sees a version. Lists go through the members in this order."""

    PUBLIC = "public"
    PRIVATE = "private"
    AUTHORIZED = "authorized"


class Cursor(NamedTuple):
    """Sort key of a version in lists: oldest first, ties by version id."""

    created_at: str
    version_id: str
    function_id: str


class _Listed(NamedTuple):
    """The lists that a version is in; ``shared_with`` are accounts."""

    cursor: Cursor
    account: str
    is_public: bool
    shared_with: frozenset[str]


class Catalog:
    """Sorted lists of versions, their details, deployments and instances."""

    def __init__(self, model: ReadModel) -> None:
        self.model = model
        self._listed: dict[str, _Listed] = {}
        self._public: list[Cursor] = []
        self._own: dict[str, list[Cursor]] = {}
        self._shared: dict[str, list[Cursor]] = {}
        self._details: dict[str, bytes] = {}
        self._deployments: dict[str, Deployment] = {}
        self._version_of: dict[str, str] = {}
        self._instances: dict[str, dict[str, Instance]] = {}

    def function(self, function_id: str) -> FunctionEntry | None:
        """Return a function with its versions."""
        return self.model.function(function_id)

    def version(self, function_id: str, version_id: str) -> FunctionVersion | None:
        entry = self.model.function(function_id)
        return None if entry is None else entry.versions.get(version_id)

    def details(self, function_id: str, version_id: str) -> VersionDetails | None:
        """Return the details of a version. Parses JSON: not for every version at once."""
        data = self._details.get(version_id)
        if data is None:
            return None
        details = cast("VersionDetails", decode(data))
        return details if details.function_id == function_id else None

    def deployment(self, version_id: str) -> Deployment | None:
        return self._deployments.get(version_id)

    def deployment_of_id(self, deployment_id: str) -> Deployment | None:
        version_id = self._version_of.get(deployment_id)
        return None if version_id is None else self._deployments.get(version_id)

    def deployments(self) -> list[Deployment]:
        """Return every deployment of every account."""
        return list(self._deployments.values())

    def instance(self, version_id: str, instance_id: str) -> Instance | None:
        return self._instances.get(version_id, {}).get(instance_id)

    def instances(self, version_id: str) -> list[Instance]:
        """Return the instances of a version, unordered."""
        return list(self._instances.get(version_id, {}).values())

    def versions(
        self,
        account: str,
        visibility: Visibility,
        after: Cursor | None = None,
        limit: int | None = None,
    ) -> list[tuple[FunctionEntry, FunctionVersion]]:
        """Return at most ``limit`` versions that ``account`` sees, in order, after ``after``.

        Each visibility is complete by itself: a public version of the account is in two lists.
        """
        cursors = self._cursors(account, visibility)
        begin = 0 if after is None else bisect_right(cursors, after)
        chosen = cursors[begin : None if limit is None else begin + limit]
        found = []
        for cursor in chosen:
            entry = self.model.function(cursor.function_id)
            version = None if entry is None else entry.versions.get(cursor.version_id)
            if entry is not None and version is not None:
                found.append((entry, version))
        return found

    def is_public(self, version_id: str) -> bool:
        """Whether every account sees the version."""
        listed = self._listed.get(version_id)
        return listed is not None and listed.is_public

    def function_ids(self, account: str) -> set[str]:
        """Return the ids of the functions that an account owns."""
        return {cursor.function_id for cursor in self._own.get(account, ())}

    def function_count(self, account: str) -> int:
        """Return the number of functions that an account owns."""
        return len(self.function_ids(account))

    def knows_account(self, account: str) -> bool:
        """Whether the account exists: by its record, an API key or a function."""
        return (
            self.model.account(account) is not None
            or account in self._own
            or self.model.has_keys(account)
        )

    def apply(self, change: Change) -> None:
        """Apply one change of the store. Applying a change twice has no further effect."""
        match change:
            case FunctionVersion(key=key) | Removed(VersionKey() as key):
                self.model.apply(change)
                self._list(key.function_id, (key.version_id,))
            case Function(key=key) | Removed(FunctionKey() as key):
                self.model.apply(change)
                entry = self.model.function(key.function_id)
                self._list(key.function_id, entry.versions if entry is not None else ())
            case VersionDetails():
                self._details[change.version_id] = encode(change)
            case Removed(DetailsKey(_, version_id)):
                self._details.pop(version_id, None)
            case Deployment():
                self._forget_deployment(change.version_id)
                self._deployments[change.version_id] = change
                self._version_of[change.deployment_id] = change.version_id
            case Removed(DeploymentKey(_, version_id)):
                self._forget_deployment(version_id)
            case Instance():
                self._instances.setdefault(change.version_id, {})[change.instance_id] = change
            case Removed(InstanceKey(version_id, instance_id)):
                self._forget_instance(version_id, instance_id)
            case _:
                self.model.apply(change)

    def _forget_deployment(self, version_id: str) -> None:
        before = self._deployments.pop(version_id, None)
        if before is not None:
            self._version_of.pop(before.deployment_id, None)

    def _forget_instance(self, version_id: str, instance_id: str) -> None:
        instances = self._instances.get(version_id, {})
        instances.pop(instance_id, None)
        if not instances:
            self._instances.pop(version_id, None)

    def _cursors(self, account: str, visibility: Visibility) -> list[Cursor]:
        match visibility:
            case Visibility.PUBLIC:
                return self._public
            case Visibility.PRIVATE:
                return self._own.get(account, [])
            case Visibility.AUTHORIZED:
                return self._shared.get(account, [])

    def _list(self, function_id: str, version_ids: Iterable[str]) -> None:
        """Move versions from the lists that they were in to those that they belong to now."""
        entry = self.model.function(function_id)
        function = None if entry is None else entry.function
        for version_id in version_ids:
            version = None if entry is None else entry.versions.get(version_id)
            before = self._listed.pop(version_id, None)
            now = None if version is None else _make_listed(version, function)
            if now is not None:
                self._listed[version_id] = now
            if now == before:
                continue
            if before is not None:
                for cursors in self._lists(before):
                    del cursors[bisect_left(cursors, before.cursor)]
            if now is not None:
                for cursors in self._lists(now):
                    insort(cursors, now.cursor)
            self._drop_empty_lists(before)

    def _lists(self, listed: _Listed) -> list[list[Cursor]]:
        lists = [self._own.setdefault(listed.account, [])]
        if listed.is_public:
            lists.append(self._public)
        lists += [self._shared.setdefault(account, []) for account in listed.shared_with]
        return lists

    def _drop_empty_lists(self, before: _Listed | None) -> None:
        if before is None:
            return
        if not self._own.get(before.account, True):
            del self._own[before.account]
        for account in before.shared_with:
            if not self._shared.get(account, True):
                del self._shared[account]


def _make_listed(version: FunctionVersion, function: Function | None) -> _Listed:
    cursor = Cursor(version.created_at, version.version_id, version.function_id)
    common = function.shared_with if function is not None else EMPTY
    parties = version.shared_with | common if common else version.shared_with
    return _Listed(
        cursor,
        version.account,
        version.is_public or (function is not None and function.is_public),
        frozenset(split_party(party)[0] for party in parties) if parties else EMPTY,
    )
