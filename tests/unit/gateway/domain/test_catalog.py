from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.catalog import Catalog, Cursor, Visibility
from gateway.domain.model import (
    Change,
    Deployment,
    DeploymentKey,
    DetailsKey,
    Function,
    FunctionKey,
    FunctionVersion,
    Instance,
    InstanceKey,
    Phase,
    Removed,
    VersionDetails,
    VersionKey,
    VersionState,
)
from gateway.domain.readmodel import ReadModel
from wire.ids import FunctionId, VersionId

F, V = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff"), VersionId("v1")
FUNCTIONS = st.sampled_from([FunctionId("f1"), FunctionId("f2")])
ACCOUNTS = st.sampled_from(["a", "b", "c"])
SHARED = st.frozensets(ACCOUNTS, max_size=2)
VERSION_CHANGES = st.one_of(
    st.builds(Function, FUNCTIONS, st.just("a"), SHARED, st.booleans()),
    st.builds(FunctionKey, FUNCTIONS).map(Removed),
    st.tuples(FUNCTIONS, st.integers(1, 3), SHARED, st.booleans(), st.sampled_from("xyz")).map(
        lambda t: FunctionVersion(
            t[0],
            VersionId(f"{t[0]}-{t[1]}"),
            "a",
            "n",
            VersionState.INACTIVE,
            shared_with=t[2],
            is_public=t[3],
            created_at=t[4],
        )
    ),
    st.tuples(FUNCTIONS, st.integers(1, 3)).map(
        lambda t: Removed(VersionKey(t[0], f"{t[0]}-{t[1]}"))
    ),
)


class Expected:
    """The same, computed anew each time."""

    def __init__(self, changes: list[Change]) -> None:
        self.functions: dict[str, Function] = {}
        self.versions: dict[str, FunctionVersion] = {}
        for change in changes:
            match change:
                case Function():
                    self.functions[change.function_id] = change
                case Removed(FunctionKey() as key):
                    self.functions.pop(key.function_id, None)
                case FunctionVersion():
                    self.versions[change.version_id] = change
                case Removed(VersionKey() as key):
                    self.versions.pop(key.version_id, None)

    def versions_of(self, account: str, visibility: Visibility) -> list[FunctionVersion]:
        found = [one for one in self.versions.values() if self.shows(one, account, visibility)]
        return sorted(found, key=lambda one: (one.created_at, one.version_id))

    def shows(self, version: FunctionVersion, account: str, visibility: Visibility) -> bool:
        common = self.functions.get(version.function_id)
        if visibility is Visibility.PRIVATE:
            return version.account == account
        if visibility is Visibility.PUBLIC:
            return version.is_public or (common is not None and common.is_public)
        return account in version.shared_with or (
            common is not None and account in common.shared_with
        )


def in_pages(catalog: Catalog, account: str, visibility: Visibility) -> list[FunctionVersion]:
    paged: list[FunctionVersion] = []
    after = None
    while page := catalog.versions(account, visibility, after, 2):
        paged += [version for _, version in page]
        last = paged[-1]
        after = Cursor(last.created_at, last.version_id, last.function_id)
    return paged


@given(st.lists(VERSION_CHANGES, max_size=25))
def test_lists_are_complete_ordered_and_right_after_any_changes(changes: list[Change]) -> None:
    catalog, expected = Catalog(ReadModel()), Expected(changes)
    for change in changes:
        catalog.apply(change)
    for account in ("a", "b", "c"):
        for visibility in Visibility:
            whole = [version for _, version in catalog.versions(account, visibility)]
            assert whole == expected.versions_of(account, visibility)
            assert in_pages(catalog, account, visibility) == whole
    functions = {version.function_id for version in expected.versions.values()}
    assert catalog.function_count("a") == len(functions)


VERSION = FunctionVersion(F, V, "a", "n", VersionState.INACTIVE, created_at="1")
UUID = VersionId("11111111-2222-4333-8444-555555555555")
DETAILS = VersionDetails(F, UUID, "a", "1", {"tags": ["x"], "health": {"port": 1}}, ("s",), "2")
DEPLOYMENT = Deployment("d", F, V, "a", (), "1", "1", 5)
INSTANCE = Instance("i", "d", "s", F, V, "a", "A10G", "large", "local", Phase.RUNNING)


def test_details_come_back_as_they_were_and_only_under_their_function() -> None:
    catalog = Catalog(ReadModel())
    catalog.apply(DETAILS)
    assert catalog.details(F, UUID) == DETAILS
    assert catalog.details("another", UUID) is None
    catalog.apply(Removed(DetailsKey(F, UUID)))
    assert catalog.details(F, UUID) is None


def test_a_deployment_is_found_by_its_id_until_another_takes_its_place() -> None:
    catalog = Catalog(ReadModel())
    catalog.apply(DEPLOYMENT)
    assert catalog.deployment_of_id("d") == DEPLOYMENT
    catalog.apply(replace(DEPLOYMENT, deployment_id="e"))
    assert catalog.deployment_of_id("d") is None
    assert catalog.deployment(V) == catalog.deployment_of_id("e")
    catalog.apply(Removed(DeploymentKey(F, V)))
    assert (catalog.deployment(V), catalog.deployment_of_id("e")) == (None, None)


def test_instances_are_listed_until_they_are_removed() -> None:
    catalog = Catalog(ReadModel())
    counts = []
    for change in (
        Function(F, "a"),
        VERSION,
        DEPLOYMENT,
        INSTANCE,
        replace(INSTANCE, busy=1),
        Removed(InstanceKey(V, "i")),
        Removed(InstanceKey(V, "i")),
        Removed(DeploymentKey(F, V)),
        Removed(VersionKey(F, V)),
    ):
        catalog.apply(change)
        counts.append(len(catalog.instances(V)))
    assert counts == [0, 0, 0, 1, 1, 0, 0, 0, 0]
