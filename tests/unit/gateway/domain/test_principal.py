import pytest

from gateway.domain.model import EVERYTHING, Function, FunctionVersion, ResourceScope, VersionState
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.readmodel import FunctionEntry, ReadModel
from wire.ids import FunctionId, VersionId

F, V = FunctionId("f"), VersionId("v")


def entry(
    *, shared: str = "", public: bool = False, common: Function | None = None
) -> tuple[FunctionEntry, FunctionVersion]:
    model = ReadModel()
    version = FunctionVersion(
        F,
        V,
        "owner",
        "name",
        VersionState.ACTIVE,
        shared_with=frozenset({shared}),
        is_public=public,
    )
    model.apply(version)
    if common is not None:
        model.apply(common)
    found = model.function(F)
    assert found is not None
    return found, version


def principal(account: str, reach: ResourceScope = EVERYTHING, scope: str = INVOKE) -> Principal:
    return Principal(account, "subject", frozenset({scope}), reach)


def test_a_function_that_is_not_shared_does_not_exist_for_other_accounts() -> None:
    assert principal("owner").sees(*entry())
    assert not principal("other").sees(*entry())


@pytest.mark.parametrize(
    "shared",
    [
        entry(shared="other"),
        entry(public=True),
        entry(common=Function(F, "owner", frozenset({"other"}))),
        entry(common=Function(F, "owner", is_public=True)),
    ],
    ids=["version", "public version", "function", "public function"],
)
def test_sharing_a_function_or_a_version_shows_it_to_the_other_account(
    shared: tuple[FunctionEntry, FunctionVersion],
) -> None:
    assert principal("other").sees(*shared)
    assert principal("other").may_invoke(*shared, is_named=False)


@pytest.mark.parametrize(
    ("account", "reach", "by_version", "by_function"),
    [
        ("owner", ResourceScope(own=True), True, True),
        ("owner", ResourceScope(shared=True), False, False),
        ("owner", ResourceScope(functions=frozenset({"f"})), True, True),
        ("owner", ResourceScope(functions=frozenset({"g"})), False, False),
        ("owner", ResourceScope(versions=frozenset({"f/v"})), True, False),
        ("owner", ResourceScope(versions=frozenset({"f/w"})), False, False),
        ("owner", ResourceScope(), False, False),
        ("other", ResourceScope(own=True), False, False),
        ("other", ResourceScope(shared=True), True, True),
        ("other", ResourceScope(functions=frozenset({"f"})), True, True),
        ("other", ResourceScope(versions=frozenset({"f/v"})), True, False),
    ],
)
def test_a_key_is_good_for_what_its_resources_say(
    account: str, reach: ResourceScope, by_version: bool, by_function: bool
) -> None:
    caller, shared = principal(account, reach), entry(shared="other")
    assert caller.may_invoke(*shared, is_named=True) is by_version
    assert caller.may_invoke(*shared, is_named=False) is by_function


def test_resources_do_not_limit_public_functions_of_others() -> None:
    assert principal("other", ResourceScope()).may_invoke(*entry(public=True), is_named=False)
    assert not principal("owner", ResourceScope()).may_invoke(*entry(public=True), is_named=False)


def test_nothing_is_invoked_without_the_scope() -> None:
    assert not principal("owner", scope="list_functions").may_invoke(*entry(), is_named=True)
