import pytest

from gateway.domain.model import (
    FunctionVersion,
    ResourceScope,
    VersionState,
)
from gateway.errors import (
    Forbidden,
    FunctionNotFound,
    GatewayError,
)
from gateway.routing.admission import Admission
from gateway.routing.router import choose
from tests.unit.gateway.routing.admissions import F, admitting, head, version
from wire.ids import FunctionId, VersionId


def failure(admission: Admission, version_id: str | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        admission.admit(head(version_id), 0.0)
    return raised.value


@pytest.mark.parametrize(
    ("state", "by_version", "by_function"),
    [
        (VersionState.ACTIVE, None, None),
        (VersionState.DEGRADING, None, None),
        (VersionState.DEGRADED, None, None),
        (VersionState.DEPLOYING, None, None),
        (VersionState.INACTIVE, FunctionNotFound, FunctionNotFound),
        (VersionState.ERROR, FunctionNotFound, FunctionNotFound),
    ],
)
def test_the_state_decides_and_is_told(
    state: VersionState,
    by_version: type[GatewayError] | None,
    by_function: type[GatewayError] | None,
) -> None:
    admission = admitting(version("a", state))
    for version_id, expected in (("a", by_version), (None, by_function)):
        if expected is None:
            assert admission.admit(head(version_id), 0.0).version.state is state
            continue
        error = failure(admission, version_id)
        assert type(error) is expected
        assert error.members == {"functionStatus": state.value}
        assert state.value in error.detail


@pytest.mark.parametrize("awaited", [VersionState.DEGRADED, VersionState.DEPLOYING])
def test_without_a_version_that_serves_a_call_waits_for_one_whose_instances_come(
    awaited: VersionState,
) -> None:
    records = (version("a", VersionState.INACTIVE), version("b", awaited))
    assert admitting(*records).admit(head(), 0.0).version.version_id == "b"
    for random in (0.0, 0.99):
        admission = admitting(*records, version("c", VersionState.ACTIVE), random=random)
        assert admission.admit(head(), 0.0).version.version_id == "c"


def test_of_another_accounts_versions_too_those_that_serve_are_preferred() -> None:
    shared = [
        version("a", VersionState.DEGRADED, "other", "own"),
        version("b", VersionState.DEGRADING, "other", "own"),
    ]
    for random in (0.0, 0.99):
        admission = admitting(*shared, random=random)
        assert admission.admit(head(), 0.0).version.version_id == "b"
    assert admitting(shared[0]).admit(head(), 0.0).version.version_id == "a"


def test_without_a_version_each_invocable_one_has_its_share_and_no_other_any() -> None:
    records = [
        version("a", VersionState.ACTIVE),
        version("b", VersionState.INACTIVE),
        version("c", VersionState.DEGRADING),
        version("d", VersionState.DEGRADED),
        version("e", VersionState.ACTIVE),
    ]
    shares = [n / 300 for n in range(300)]
    picked = [admitting(*records, random=n).admit(head(), 0.0).version.version_id for n in shares]
    assert {id_: picked.count(VersionId(id_)) for id_ in set(picked)} == {
        "a": 100,
        "c": 100,
        "e": 100,
    }


def test_a_public_version_does_not_hide_the_owners_private_ones() -> None:
    public = FunctionVersion(F, VersionId("p"), "own", "n", VersionState.ACTIVE, is_public=True)
    records = [public, version("a", VersionState.ACTIVE)]
    picked = {
        admitting(*records, random=random).admit(head(), 0.0).version.version_id
        for random in (0.0, 0.9)
    }
    assert picked == {"p", "a"}


def test_a_function_of_another_account_looks_like_one_that_does_not_exist() -> None:
    foreign = admitting(version("a", VersionState.ACTIVE, "other"))
    nothing = admitting()
    for version_id in (None, "a"):
        ours, theirs = failure(nothing, version_id), failure(foreign, version_id)
        assert type(ours) is type(theirs) is FunctionNotFound
        assert (ours.detail, ours.members) == (theirs.detail, theirs.members)


def test_of_another_accounts_function_only_the_shared_versions_can_be_reached() -> None:
    admission = admitting(
        version("a", VersionState.ACTIVE, "other"),
        version("b", VersionState.ACTIVE, "other", "own"),
        version("c", VersionState.DEGRADED, "other"),
        random=0.99,
    )
    assert admission.admit(head(), 0.0).version.version_id == "b"
    assert isinstance(failure(admission, "a"), FunctionNotFound)


def test_states_of_versions_that_the_caller_does_not_see_are_not_told() -> None:
    error = failure(
        admitting(
            version("a", VersionState.INACTIVE, "other", "own"),
            version("b", VersionState.ERROR, "other"),
        )
    )
    assert error.members == {"functionStatus": "INACTIVE"}


def test_a_version_under_another_function_id_is_not_found() -> None:
    assert isinstance(failure(admitting(version("a", VersionState.ACTIVE)), "b"), FunctionNotFound)


def test_a_key_for_one_version_does_not_open_the_function() -> None:
    admission = admitting(
        version("a", VersionState.ACTIVE),
        version("b", VersionState.ACTIVE),
        reach=ResourceScope(versions=frozenset({f"{F}/a"})),
    )
    assert admission.admit(head("a"), 0.0).version.version_id == "a"
    assert isinstance(failure(admission, "b"), Forbidden)
    assert isinstance(failure(admission), Forbidden)


def test_a_key_for_one_function_opens_all_its_versions_and_no_other_function() -> None:
    a = version("a", VersionState.ACTIVE)
    assert (
        admitting(a, reach=ResourceScope(functions=frozenset({F}))).admit(head(), 0.0).version is a
    )
    elsewhere = admitting(a, reach=ResourceScope(functions=frozenset({"other"})))
    assert isinstance(failure(elsewhere), Forbidden)
    assert isinstance(failure(elsewhere, "a"), Forbidden)


def test_a_limited_key_learns_nothing_of_the_state() -> None:
    error = failure(admitting(version("a", VersionState.ERROR), reach=ResourceScope()), "a")
    assert isinstance(error, Forbidden)
    assert error.members == {}


def test_without_the_scope_nothing_is_looked_up() -> None:
    admission = admitting(version("a", VersionState.ACTIVE), scope="list_functions")
    assert isinstance(failure(admission), Forbidden)
    assert isinstance(failure(admitting(scope="list_functions"), "x"), Forbidden)


def test_a_call_goes_where_capacity_runs_and_anywhere_where_none_does() -> None:
    def version(capacity: int) -> FunctionVersion:
        version_id = VersionId(f"v{capacity}")
        return FunctionVersion(
            FunctionId("f"), version_id, "own", "n", VersionState.ACTIVE, capacity=capacity
        )

    candidates = [version(1), version(0), version(3)]
    draws = [number / 100 for number in range(100)]
    chosen_ids = [choose(candidates, draw).version_id for draw in draws]
    assert chosen_ids.count(VersionId("v1")) == 25
    assert chosen_ids.count(VersionId("v3")) == 75
    idle = [version(0), version(0)]
    assert [choose(idle, draw) is idle[0] for draw in (0.0, 0.49, 0.5, 0.99)].count(True) == 2
