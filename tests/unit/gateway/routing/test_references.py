import pytest

from gateway.domain.model import (
    EVERYTHING,
    Function,
    FunctionVersion,
    ResourceScope,
    VersionState,
)
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.readmodel import MAX_NAMESAKES, ReadModel
from gateway.errors import AmbiguousName
from gateway.routing.references import FunctionNames, Named, Reference, parse_reference
from wire.ids import FunctionId, VersionId

F = FunctionId("11111111-1111-4111-8111-111111111111")
G = FunctionId("22222222-2222-4222-8222-222222222222")
V = VersionId("33333333-3333-4333-8333-333333333333")
W = VersionId("44444444-4444-4444-8444-444444444444")


def version(
    function: FunctionId = F,
    account: str = "own",
    name: str = "chat",
    state: VersionState = VersionState.ACTIVE,
    version_id: VersionId = V,
    is_public: bool = False,
    shared_with: frozenset[str] = frozenset(),
) -> FunctionVersion:
    return FunctionVersion(
        function,
        version_id,
        account,
        name,
        state,
        is_public=is_public,
        shared_with=shared_with,
    )


def caller(reach: ResourceScope = EVERYTHING, account: str = "own") -> Principal:
    return Principal(account, "sub", frozenset({INVOKE}), reach)


def names(*versions: FunctionVersion) -> FunctionNames:
    model = ReadModel()
    for one in versions:
        model.apply(one)
    return FunctionNames(model)


def find(known: FunctionNames, text: str, principal: Principal | None = None) -> Named | None:
    reference = parse_reference(text)
    assert reference is not None
    return known.find(reference, principal or caller())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chat", Reference("chat", False)),
        ("chat/meta/llama-3", Reference("chat", False, None, "meta/llama-3")),
        (F.upper(), Reference(F, True)),
        (f"{F}:{V}", Reference(F, True, V)),
        (f"{F}:{V}/m", Reference(F, True, V, "m")),
        (f"chat:{V}", Reference("chat", False, V)),
        ("", None),
        ("chat:latest", None),
        ("chat/", None),
        ("a b", None),
        ("-a", None),
        ("x" * 129, None),
        ("é", None),
    ],
)
def test_the_forms_of_a_reference(text: str, expected: Reference | None) -> None:
    assert parse_reference(text) == expected


def test_a_function_is_found_by_name_and_by_id() -> None:
    known = names(version())
    assert find(known, "chat") == find(known, F) == Named(F)
    assert find(known, f"chat:{W}") == Named(F, W)
    assert find(known, "other") is None
    assert find(known, G) is None


def test_what_the_caller_cannot_see_or_call_is_not_found() -> None:
    known = names(version(account="other"))
    assert find(known, "chat") is find(known, F) is None
    limited = caller(ResourceScope(functions=frozenset({G})))
    assert find(names(version()), "chat", limited) is None


def test_shared_and_public_functions_are_found_too() -> None:
    assert find(names(version(account="other", is_public=True)), "chat") == Named(F)
    assert find(names(version(account="other", shared_with=frozenset({"own"}))), "chat") == Named(F)
    model = ReadModel()
    model.apply(Function(F, "other", frozenset({"own"})))
    model.apply(version(account="other"))
    assert find(FunctionNames(model), "chat") == Named(F)


def test_a_strangers_function_never_takes_the_name_of_an_own_one() -> None:
    strangers = [
        version(FunctionId(f"{n:08}-0000-4000-8000-000000000000"), "other", is_public=True)
        for n in range(MAX_NAMESAKES + 1)
    ]
    shared = [
        version(
            FunctionId(f"{n:08}-1111-4000-8000-000000000000"),
            "other",
            shared_with=frozenset({"own"}),
        )
        for n in range(MAX_NAMESAKES + 1)
    ]
    known = names(*strangers, *shared, version(state=VersionState.INACTIVE))
    assert find(known, "chat") == Named(F)


def test_several_functions_of_one_name_are_listed_as_the_choices() -> None:
    with pytest.raises(AmbiguousName) as raised:
        find(names(version(F), version(G)), "chat")
    assert F in raised.value.detail
    assert G in raised.value.detail
    limited = caller(ResourceScope(functions=frozenset({G})))
    assert find(names(version(F), version(G)), "chat", limited) == Named(G)


def test_of_several_the_only_one_that_can_be_invoked_is_meant() -> None:
    assert find(names(version(F, state=VersionState.INACTIVE), version(G)), "chat") == Named(G)


def test_a_credential_for_one_version_means_that_version() -> None:
    limited = caller(ResourceScope(versions=frozenset({f"{F}/{V}"})))
    known = names(version(), version(version_id=W))
    assert find(known, "chat", limited) == Named(F, V)


def test_a_name_follows_its_versions() -> None:
    model = ReadModel()
    model.apply(version())
    model.apply(version(name="new"))
    known = FunctionNames(model)
    assert find(known, "chat") is None
    assert find(known, "new") == Named(F)


@pytest.mark.parametrize(
    ("reach", "expected"),
    [
        (ResourceScope(functions=frozenset({F})), Named(F)),
        (ResourceScope(functions=frozenset({F}), versions=frozenset({f"{F}/{V}"})), Named(F)),
        (ResourceScope(versions=frozenset({f"{F}/{V}"})), Named(F, V)),
        (ResourceScope(versions=frozenset({f"{F}/{V}", f"{F}/{W}"})), None),
        (ResourceScope(functions=frozenset({F, G})), None),
        (ResourceScope(functions=frozenset({F}), shared=True), None),
        (EVERYTHING, None),
        (ResourceScope(), None),
    ],
)
def test_a_credential_for_one_function_implies_it(
    reach: ResourceScope, expected: Named | None
) -> None:
    assert names().only(caller(reach)) == expected


def test_a_credential_that_may_not_invoke_implies_nothing() -> None:
    principal = caller(ResourceScope(functions=frozenset({F})))._replace(scopes=frozenset())
    assert names().only(principal) is None
