"""From what is wanted and what is there to the steps between them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.cli.apply.planning import (
    FoundVersion,
    PlanError,
    PlanOptions,
    WantedFunction,
    make_plan,
)

OPTIONS = PlanOptions("default", prunes=False, waits=False, salt=lambda: bytes(8))
PRUNE = replace(OPTIONS, prunes=True)
TAG = "gateway-apply:default"
GPU = {"gpu": "L40S", "minInstances": 1, "maxInstances": 2}


def wanted(*gpu_specs: Mapping[str, Any], name: str = "chat", **members: Any) -> WantedFunction:
    secrets = members.pop("secrets", {})
    spec = {
        "name": name,
        "inferenceUrl": "/v1",
        "containerImage": "img:1",
        "description": name,
        "health": {"protocol": "HTTP", "uri": "/h", "port": 8000},
        **members,
    }
    return WantedFunction(name, "f.yaml:1", spec, secrets, gpu_specs)


def there(
    function: WantedFunction, version_id: str, status: str = "INACTIVE", **members: Any
) -> FoundVersion:
    """Return the version that creating the function makes, deployed unless it is INACTIVE."""
    (step,) = make_plan([replace(function, gpu_specs=())], [], OPTIONS).functions[0].steps
    assert step.body is not None
    view = {name: value for name, value in step.body.items() if name != "secrets"}
    view |= {"id": f"f-{function.name}", "versionId": version_id, "status": status, **members}
    specs = [
        {"gpuSpecificationId": str(at), "backend": "", "instanceType": "t", "preferredOrder": 1}
        | {"maxRequestConcurrency": 1, **spec}
        for at, spec in enumerate(function.gpu_specs)
    ]
    deployment = {"deploymentSpecifications": specs} if status != "INACTIVE" else None
    return FoundVersion(view, deployment)


def steps(
    function: WantedFunction, *found: FoundVersion, options: PlanOptions = OPTIONS
) -> list[str]:
    (plan,) = make_plan([function], found, options).functions
    return [
        f"{step.kind.name} {step.ref.version_id if step.ref else ''}".strip() for step in plan.steps
    ]


def test_a_new_function_is_created_with_its_tag_and_deployed() -> None:
    plan = make_plan([wanted(GPU, tags=["mine"])], [], OPTIONS)
    create, deploy = plan.functions[0].steps
    assert create.body is not None
    assert create.body["tags"] == ["mine", TAG]
    assert (create.ref, deploy.ref) == (None, None)
    assert deploy.body == {"deploymentSpecifications": [GPU]}


@pytest.mark.parametrize("options", [OPTIONS, PRUNE])
def test_what_is_as_wanted_needs_nothing(options: PlanOptions) -> None:
    function = wanted(GPU, secrets={"a": "x"}, tags=["mine"], rateLimit={"rateLimit": "5-S"})
    plan = make_plan([function], [there(function, "1", "ACTIVE")], options)
    assert plan.functions[0].steps == ()
    assert not plan.changes_anything


def test_members_that_responses_fill_in_or_leave_out_are_no_difference() -> None:
    environment = [{"key": "A", "value": "1"}, {"key": "B", "value": "2"}]
    found = there(wanted(GPU, containerEnvironment=environment[::-1]), "1", "ACTIVE")
    gpu_spec = {**GPU, "gpu": "l40s", "regions": []}
    function = wanted(gpu_spec, allowRerun=True, containerEnvironment=environment)
    assert steps(function, found) == []


def test_what_can_be_changed_is_changed_in_place() -> None:
    before = wanted(
        GPU, tags=["a"], rateLimit={"rateLimit": "5-S"}, cors={"origins": ["https://a.example"]}
    )
    after = wanted({**GPU, "maxInstances": 5}, tags=["b"], description="new")
    plan = make_plan([after], [there(before, "1", "ACTIVE")], OPTIONS)
    update, scale = plan.functions[0].steps
    assert update.body == {
        "description": "new",
        "rateLimit": None,
        "cors": {"origins": []},
        "tags": ["b", TAG],
    }
    assert scale.body == {
        "deploymentSpecifications": [
            {"gpuSpecificationId": "0", "minInstances": 1, "maxInstances": 5}
            | {"maxRequestConcurrency": 1}
        ]
    }
    assert [change[:] for change in scale.changes] == [
        ("deploymentSpecifications.0.maxInstances", 2, 5)
    ]


def test_another_image_makes_a_version_that_is_active_before_the_old_one_goes() -> None:
    old = there(wanted(GPU), "1", "ACTIVE")
    new = wanted(GPU, containerImage="img:2")
    assert steps(new, old) == ["ADD", "DEPLOY", "AWAIT", "UNDEPLOY 1"]
    (plan,) = make_plan([new], [old], OPTIONS).functions
    assert [change[:] for change in plan.steps[0].changes] == [("containerImage", "img:1", "img:2")]
    assert steps(new, old, options=PRUNE)[3:] == ["UNDEPLOY 1", "AWAIT_GONE 1", "DELETE 1"]


def test_an_interrupted_replacement_is_continued_wherever_it_was() -> None:
    new = wanted(GPU, containerImage="img:2")
    old = there(wanted(GPU), "1", "ACTIVE")
    assert steps(new, old, there(new, "2")) == ["DEPLOY 2", "AWAIT 2", "UNDEPLOY 1"]
    assert steps(new, old, there(new, "2", "DEPLOYING")) == ["AWAIT 2", "UNDEPLOY 1"]
    assert steps(new, old, there(new, "2", "ERROR")) == ["DEPLOY 2", "AWAIT 2", "UNDEPLOY 1"]
    gone = replace(old, view={**old.view, "status": "INACTIVE"}, deployment=None)
    assert steps(new, gone, there(new, "2", "ACTIVE")) == []
    assert steps(new, gone, there(new, "2", "ACTIVE"), options=PRUNE) == [
        "AWAIT_GONE 1",
        "DELETE 1",
    ]


def test_going_back_deploys_the_version_of_before() -> None:
    first, second = wanted(GPU), wanted(GPU, containerImage="img:2")
    found = [there(first, "1"), there(second, "2", "ACTIVE")]
    assert steps(first, *found) == ["DEPLOY 1", "AWAIT 1", "UNDEPLOY 2"]


def test_another_gpu_makes_a_version_too_because_a_deployment_keeps_its_own() -> None:
    old = there(wanted(GPU), "1", "ACTIVE")
    function = wanted({**GPU, "gpu": "H100"})
    assert steps(function, old) == ["ADD", "DEPLOY", "AWAIT", "UNDEPLOY 1"]
    assert steps(wanted(GPU, GPU), old)[0] == "ADD"
    (plan,) = make_plan([function], [old], OPTIONS).functions
    assert [change[:] for step in plan.steps for change in step.changes] == [
        ("deploymentSpecifications.0.gpu", "L40S", "H100")
    ]


def test_gpu_specifications_are_the_same_in_any_order() -> None:
    other = {**GPU, "gpu": "H100"}
    old = there(wanted(GPU, other), "1", "ACTIVE")
    (plan,) = make_plan([wanted({**other, "minInstances": 0}, GPU)], [old], OPTIONS).functions
    (scale,) = plan.steps
    assert scale.body is not None
    numbers = {
        spec["gpuSpecificationId"]: spec["minInstances"]
        for spec in scale.body["deploymentSpecifications"]
    }
    assert numbers == {"1": 0, "0": 1}


def test_other_secrets_make_a_version_and_are_not_shown() -> None:
    old = there(wanted(GPU, secrets={"a": "hunter2"}), "1", "ACTIVE")
    assert steps(wanted(GPU, secrets={"a": "hunter2"}), old) == []
    for secrets in ({"a": "hunter3"}, {"b": "hunter2"}, {}):
        (plan,) = make_plan([wanted(GPU, secrets=secrets)], [old], OPTIONS).functions
        assert plan.steps[0].kind.name == "ADD"
        assert "hunter" not in repr(plan.steps[0].changes)
    assert "hunter" not in repr(old.tags)


def test_without_gpu_specifications_it_is_undeployed_and_kept() -> None:
    function = wanted()
    assert steps(function, there(wanted(GPU), "1", "ACTIVE"), options=PRUNE) == ["UNDEPLOY 1"]
    assert steps(function, there(function, "1")) == []
    waits = replace(OPTIONS, waits=True)
    assert steps(function, there(wanted(GPU), "1", "ACTIVE"), options=waits) == [
        "UNDEPLOY 1",
        "AWAIT_GONE 1",
    ]


def test_only_functions_of_the_set_are_removed_and_only_with_prune() -> None:
    mine, gone = wanted(GPU), wanted(GPU, name="old")
    others = there(wanted(GPU, name="others"), "9", "ACTIVE", tags=["gateway-apply:other"])
    untagged = there(wanted(GPU, name="by-hand"), "8", "ACTIVE", tags=[])
    found = [there(mine, "1", "ACTIVE"), there(gone, "2", "ACTIVE"), others, untagged]
    plan = make_plan([mine], found, OPTIONS)
    assert (plan.left, plan.removals, plan.changes_anything) == (("old",), (), False)
    (removal,) = make_plan([mine], found, PRUNE).removals
    assert removal.name == "old"
    assert [step.kind.name for step in removal.steps] == ["UNDEPLOY", "AWAIT_GONE", "DELETE"]


def test_versions_that_others_made_in_a_function_of_the_set_are_left_alone() -> None:
    new = wanted(GPU, containerImage="img:2")
    by_hand = there(wanted(GPU), "1", "ACTIVE", tags=[])
    assert steps(new, by_hand, there(new, "2", "ACTIVE"), options=PRUNE) == []


@pytest.mark.parametrize("tags", [[], ["gateway-apply:other"]])
def test_a_function_that_is_not_of_the_set_is_refused(tags: list[str]) -> None:
    with pytest.raises(PlanError, match=r"not of the set default.*the tag gateway-apply:default"):
        make_plan([wanted(GPU)], [there(wanted(GPU), "1", tags=tags)], OPTIONS)


def test_waiting_is_the_last_step_and_no_change() -> None:
    function = wanted(GPU)
    waits = replace(OPTIONS, waits=True)
    plan = make_plan([function], [there(function, "1", "DEPLOYING")], waits)
    assert [step.kind.name for step in plan.functions[0].steps] == ["AWAIT"]
    assert not plan.changes_anything
