"""All of the store but keys and secrets, in memory, for the API and for whoever keeps instances.

Routing needs less and has the `ReadModel`, which is the other half of this one: changes come in
here and what concerns routing is passed on. Details are kept as they are stored, a third of the
size of what they are read into, and read when somebody asks.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple, cast

from gateway.domain.model import (
    NOBODY,
    Change,
    Deployment,
    DeploymentRemoved,
    DetailsRemoved,
    Function,
    FunctionRemoved,
    FunctionVersion,
    Instance,
    InstanceRemoved,
    VersionDetails,
    VersionRemoved,
    decode,
    encode,
)
from gateway.domain.readmodel import FunctionEntry, ReadModel

Listener = Callable[[str, str, str], None]
"""Called with kind (``function``, ``version``, ``details``, ``deployment``, ``instance``), function
id and version id (empty for ``function``) after the catalog shows the change."""


class Visibility(Enum):
    """Why a caller sees a version; lists go through them in this order."""

    PUBLIC = "public"
    PRIVATE = "private"
    AUTHORIZED = "authorized"


class Place(NamedTuple):
    """Where a version stands in lists: oldest first, ties by version id."""

    created_at: str
    version_id: str
    function_id: str


class _Shown(NamedTuple):
    """In which lists a version stands."""

    place: Place
    account: str
    is_public: bool
    shared_with: frozenset[str]


class Catalog:
    """Versions in order, their details, deployments and instances."""

    def __init__(self, model: ReadModel) -> None:
        self.model = model
        self._shown: dict[str, _Shown] = {}
        self._public: list[Place] = []
        self._own: dict[str, list[Place]] = {}
        self._shared: dict[str, list[Place]] = {}
        self._details: dict[str, bytes] = {}
        self._deployments: dict[str, Deployment] = {}
        self._version_of: dict[str, str] = {}
        self._instances: dict[str, dict[str, Instance]] = {}
        self._listeners: list[Listener] = []

    def on_change(self, listener: Listener) -> None:
        """Call ``listener`` after every change from now on. It must be quick and must not raise."""
        self._listeners.append(listener)

    def function(self, function_id: str) -> FunctionEntry | None:
        """Return a function with its versions."""
        return self.model.function(function_id)

    def version(self, function_id: str, version_id: str) -> FunctionVersion | None:
        entry = self.model.function(function_id)
        return None if entry is None else entry.versions.get(version_id)

    def details(self, function_id: str, version_id: str) -> VersionDetails | None:
        """Return how a version was registered. Reads a document: not for every version at once."""
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
        """Return every deployment, of all accounts."""
        return list(self._deployments.values())

    def instances(self, version_id: str) -> list[Instance]:
        """Return a version's instances, in no order."""
        return list(self._instances.get(version_id, {}).values())

    def versions(
        self,
        account: str,
        visibility: Visibility,
        after: Place | None = None,
        limit: int | None = None,
    ) -> list[tuple[FunctionEntry, FunctionVersion]]:
        """Return at most ``limit`` versions that ``account`` sees, those behind ``after``.

        Each class is complete by itself: an account's own version that is public is in two.
        """
        places = self._places(account, visibility)
        begin = 0 if after is None else bisect_right(places, after)
        chosen = places[begin : None if limit is None else begin + limit]
        found = []
        for place in chosen:
            entry = self.model.function(place.function_id)
            version = None if entry is None else entry.versions.get(place.version_id)
            if entry is not None and version is not None:
                found.append((entry, version))
        return found

    def place_of(self, version_id: str) -> Place | None:
        """Return where a version stands in lists."""
        shown = self._shown.get(version_id)
        return None if shown is None else shown.place

    def is_public(self, version_id: str) -> bool:
        """Whether every account sees the version."""
        shown = self._shown.get(version_id)
        return shown is not None and shown.is_public

    def function_ids(self, account: str) -> set[str]:
        """Return the functions that an account owns."""
        return {place.function_id for place in self._own.get(account, ())}

    def function_count(self, account: str) -> int:
        """Return how many functions an account owns."""
        return len(self.function_ids(account))

    def knows_account(self, account: str) -> bool:
        """Whether there is such an account: by its record, a key or a function."""
        return (
            self.model.account(account) is not None
            or account in self._own
            or self.model.has_keys(account)
        )

    def apply(self, change: Change) -> None:
        """Take one change of the store. Applying the same one again changes nothing."""
        match change:
            case FunctionVersion() | VersionRemoved():
                self.model.apply(change)
                self._show(change.function_id, (change.version_id,))
                self._tell("version", change.function_id, change.version_id)
            case Function() | FunctionRemoved():
                self.model.apply(change)
                entry = self.model.function(change.function_id)
                self._show(change.function_id, entry.versions if entry is not None else ())
                self._tell("function", change.function_id, "")
            case VersionDetails() | DetailsRemoved():
                self._keep_details(change)
            case Deployment() | DeploymentRemoved():
                self._keep_deployment(change)
            case Instance() | InstanceRemoved():
                self._keep_instance(change)
            case _:
                self.model.apply(change)

    def _tell(self, kind: str, function_id: str, version_id: str) -> None:
        for listener in self._listeners:
            listener(kind, function_id, version_id)

    def _keep_details(self, change: VersionDetails | DetailsRemoved) -> None:
        if isinstance(change, VersionDetails):
            self._details[change.version_id] = encode(change)
        else:
            self._details.pop(change.version_id, None)
        self._tell("details", change.function_id, change.version_id)

    def _keep_deployment(self, change: Deployment | DeploymentRemoved) -> None:
        before = self._deployments.pop(change.version_id, None)
        if before is not None:
            self._version_of.pop(before.deployment_id, None)
        if isinstance(change, Deployment):
            self._deployments[change.version_id] = change
            self._version_of[change.deployment_id] = change.version_id
        self._tell("deployment", change.function_id, change.version_id)

    def _keep_instance(self, change: Instance | InstanceRemoved) -> None:
        instances = self._instances.setdefault(change.version_id, {})
        before = instances.pop(change.instance_id, None)
        if isinstance(change, Instance):
            instances[change.instance_id] = before = change
        elif not instances:
            del self._instances[change.version_id]
        if before is not None:
            self._tell("instance", before.function_id, change.version_id)

    def _places(self, account: str, visibility: Visibility) -> list[Place]:
        match visibility:
            case Visibility.PUBLIC:
                return self._public
            case Visibility.PRIVATE:
                return self._own.get(account, [])
            case Visibility.AUTHORIZED:
                return self._shared.get(account, [])

    def _show(self, function_id: str, version_ids: Iterable[str]) -> None:
        """Put versions where they belong now, and take them from where they do not any more."""
        entry = self.model.function(function_id)
        function = None if entry is None else entry.function
        for version_id in version_ids:
            version = None if entry is None else entry.versions.get(version_id)
            before = self._shown.pop(version_id, None)
            now = None if version is None else _shown(version, function)
            if now is not None:
                self._shown[version_id] = now
            if now == before:
                continue
            if before is not None:
                for places in self._lists(before):
                    del places[bisect_left(places, before.place)]
            if now is not None:
                for places in self._lists(now):
                    insort(places, now.place)
            self._tidy(before)

    def _lists(self, shown: _Shown) -> list[list[Place]]:
        lists = [self._own.setdefault(shown.account, [])]
        if shown.is_public:
            lists.append(self._public)
        lists += [self._shared.setdefault(account, []) for account in shown.shared_with]
        return lists

    def _tidy(self, before: _Shown | None) -> None:
        """Keep no empty list of an account that has nothing any more."""
        if before is None:
            return
        if not self._own.get(before.account, True):
            del self._own[before.account]
        for account in before.shared_with:
            if not self._shared.get(account, True):
                del self._shared[account]


def _shown(version: FunctionVersion, function: Function | None) -> _Shown:
    place = Place(version.created_at, version.version_id, version.function_id)
    common = function.shared_with if function is not None else NOBODY
    return _Shown(
        place,
        version.account,
        version.is_public or (function is not None and function.is_public),
        version.shared_with | common if common else version.shared_with,
    )
