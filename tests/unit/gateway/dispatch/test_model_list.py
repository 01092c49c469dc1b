import json
from datetime import UTC, datetime

from gateway.dispatch.model_list import model_list, model_of
from gateway.domain.model import EVERYTHING, FunctionVersion, ResourceScope, VersionState
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.readmodel import ReadModel
from gateway.routing.references import FunctionNames
from wire.ids import FunctionId, VersionId

V = VersionId("33333333-3333-4333-8333-333333333333")


def function_id(number: int) -> FunctionId:
    return FunctionId(f"{number:08}-0000-4000-8000-000000000000")


def version(
    number: int,
    name: str,
    account: str = "own",
    state: VersionState = VersionState.ACTIVE,
    is_public: bool = False,
) -> FunctionVersion:
    return FunctionVersion(
        function_id(number),
        V,
        account,
        name,
        state,
        is_public=is_public,
        created_at="2026-01-02T03:04:05.000000Z",
    )


def listed(reach: ResourceScope, *versions: FunctionVersion) -> list[dict[str, object]]:
    model = ReadModel()
    for one in versions:
        model.apply(one)
    principal = Principal("own", "sub", frozenset({INVOKE}), reach)
    document = json.loads(b"".join(model_list(FunctionNames(model), principal)))
    assert document["object"] == "list"
    return list(document["data"])


def test_the_functions_that_the_caller_may_call_are_listed_as_models() -> None:
    (model,) = listed(
        EVERYTHING,
        version(1, "chat"),
        version(2, "off", state=VersionState.INACTIVE),
        version(3, "others", account="other"),
    )
    created = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert model == {"id": "chat", "object": "model", "created": created, "owned_by": "own"}


def test_a_name_that_means_no_single_function_is_replaced_by_ids() -> None:
    twins = listed(EVERYTHING, version(1, "chat"), version(2, "chat"))
    assert {model["id"] for model in twins} == {function_id(1), function_id(2)}
    own_first = listed(EVERYTHING, version(1, "chat"), version(2, "chat", "other", is_public=True))
    assert {model["id"] for model in own_first} == {"chat", function_id(2)}


def test_a_long_list_is_made_in_parts_and_a_limited_key_gets_its_own() -> None:
    versions = [version(number, f"f{number}") for number in range(1000)]
    assert len(listed(EVERYTHING, *versions)) == 1000
    reach = ResourceScope(functions=frozenset({function_id(7), function_id(9)}))
    assert [model["id"] for model in listed(reach, *versions)] == ["f7", "f9"]


def test_one_model_is_told_by_its_name_and_not_while_it_cannot_be_invoked() -> None:
    model = ReadModel()
    model.apply(version(1, "chat"))
    model.apply(version(2, "off", state=VersionState.ERROR))
    principal = Principal("own", "sub", frozenset({INVOKE}), EVERYTHING)
    one = model_of(FunctionNames(model), function_id(1), principal)
    assert one is not None
    assert json.loads(one)["id"] == "chat"
    assert model_of(FunctionNames(model), function_id(2), principal) is None
