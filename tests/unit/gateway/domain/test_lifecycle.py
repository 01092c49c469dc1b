import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import lifecycle
from gateway.domain.clusters import ClusterGroup, Clusters, Gpu, InstanceType, VersionSource
from gateway.domain.lifecycle import SpecRequest
from gateway.domain.model import BUSY, Deployment, FunctionVersion, GpuSpec, VersionState
from gateway.errors import BadRequest, NotFound
from wire.ids import FunctionId, VersionId

F, V = FunctionId("f"), VersionId("v")
VERSION = FunctionVersion(F, V, "a", "n", VersionState.INACTIVE)
SPEC = GpuSpec("s1", "A10G", "east", "large", 1, 2, 4, {"clusters": ["e1"], "preferredOrder": 3})
OTHER = replace(SPEC, spec_id="s2", gpu="T4")
CLUSTERS = Clusters(
    [ClusterGroup("east", "p", (Gpu("A10G", (InstanceType("large"),)),), images=("*",))]
)
TWO = Clusters(
    [
        ClusterGroup("east", "p", (Gpu("T4", (InstanceType("x"),)),), images=("slow:*",)),
        ClusterGroup("west", "p", (Gpu("T4", (InstanceType("x"),)),), images=("fast:*",)),
    ]
)


def deployment(*specs: GpuSpec) -> Deployment:
    return Deployment("d", F, V, "a", specs or (SPEC,), "before", "before", 100)


def in_state(state: VersionState) -> FunctionVersion:
    return replace(VERSION, state=state)


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_timestamps_are_ordered_as_the_times_are(one: float, other: float) -> None:
    first, second = sorted((one, other))
    assert lifecycle.timestamp(first) <= lifecycle.timestamp(second)
    assert len(lifecycle.timestamp(one)) == len("2026-08-22T01:02:03.123456Z")


@pytest.mark.parametrize(
    ("url", "port", "path", "expected_port"),
    [("/echo", 9, "/echo", 9), ("echo", None, "/echo", 8000), ("", None, "/", 8000)],
)
def test_a_new_version_is_inactive_and_knows_where_its_server_answers(
    url: str, port: int | None, path: str, expected_port: int
) -> None:
    spec = {"name": "n", "inferenceUrl": url, **({"inferencePort": port} if port else {})}
    details, version = lifecycle.register_records("a", F, V, spec, 0.0, ["s"])
    assert version.state is VersionState.INACTIVE
    assert (version.inference_path, version.inference_port) == (path, expected_port)
    assert version.created_at == details.created_at == "1970-01-01T00:00:00.000000Z"
    assert details.secret_names == ("s",)
    assert version.max_body_bytes == 0


def test_a_version_knows_its_largest_body() -> None:
    spec = {"name": "n", "inferenceUrl": "/", "maxBodyBytes": 9}
    _, version = lifecycle.register_records("a", F, V, spec, 0.0)
    assert version.max_body_bytes == 9


def test_a_new_version_passes_interim_responses_on_only_if_it_says_so() -> None:
    spec = {"name": "n", "inferenceUrl": "/"}
    for more in ({}, {"passInterim": None}, {"passInterim": False}, {"passInterim": True}):
        _, version = lifecycle.register_records("a", F, V, {**spec, **more}, 0.0)
        assert version.passes_interim is (more == {"passInterim": True})


def test_a_new_version_allows_reruns_unless_it_says_no() -> None:
    for more, allows_rerun in (
        ({}, True),
        ({"allowRerun": True}, True),
        ({"allowRerun": False}, False),
    ):
        spec = {"name": "n", "inferenceUrl": "/", **more}
        assert lifecycle.register_records("a", F, V, spec, 0.0)[1].allows_rerun is allows_rerun


@pytest.mark.parametrize("state", list(VersionState))
def test_only_what_is_inactive_failed_or_draining_is_deployed(state: VersionState) -> None:
    if state is VersionState.ERROR:
        lifecycle.check_deployable(in_state(state), deployment())
        return
    if state is VersionState.INACTIVE:
        lifecycle.check_deployable(in_state(state), None)
        lifecycle.check_deployable(in_state(state), replace(deployment(), draining_until=9))
    with pytest.raises(BadRequest) as refused:
        lifecycle.check_deployable(in_state(state), deployment())
    assert refused.value.members["functionStatus"] == state.value


@pytest.mark.parametrize(
    ("minimums", "state"),
    [
        ((0, 0), VersionState.ACTIVE),
        ((0, 1), VersionState.DEPLOYING),
        ((1, 1), VersionState.DEPLOYING),
    ],
)
def test_a_deployment_that_wants_nothing_yet_is_up_at_once(
    minimums: tuple[int, int], state: VersionState
) -> None:
    specs = tuple(replace(SPEC, min_instances=low) for low in minimums)
    made, version = lifecycle.deploy_records(VERSION, "d", specs, 50.5, 100.0)
    assert version.state is state
    assert (made.deadline_at, made.draining_until) == (150, None)


def test_wishes_are_placed_with_what_was_not_said_filled_in() -> None:
    (spec,) = lifecycle.choose_specs(
        [SpecRequest(gpu="a10g")], CLUSTERS, "a", VersionSource("img:1"), lambda: "id"
    )
    assert spec == GpuSpec("id", "A10G", "east", "large", 0, 1, 1)
    with pytest.raises(BadRequest, match="above"):
        lifecycle.choose_specs(
            [SpecRequest(gpu="a10g", min_instances=2)],
            CLUSTERS,
            "a",
            VersionSource("img:1"),
            lambda: "id",
        )


@pytest.mark.parametrize(
    ("source", "request_", "told"),
    [
        (VersionSource("fast:1"), SpecRequest(gpu="T4"), "west"),
        (VersionSource("fast:1"), SpecRequest(gpu="T4", backend="west"), "west"),
        (VersionSource("slow:1"), SpecRequest(gpu="T4"), "east"),
    ],
)
def test_a_version_is_placed_where_its_image_can_be_run(
    source: VersionSource, request_: SpecRequest, told: str
) -> None:
    (spec,) = lifecycle.choose_specs([request_], TWO, "a", source, lambda: "id")
    assert spec.backend == told


@pytest.mark.parametrize(
    ("source", "request_", "told"),
    [
        (
            VersionSource("fast:1"),
            SpecRequest(gpu="T4", backend="east"),
            "cluster 'east' has no command for the image 'fast:1'; these have one: west",
        ),
        (
            VersionSource("new:1"),
            SpecRequest(gpu="T4"),
            "no cluster has a command for the image 'new:1'; "
            "the images with one are: slow:* (east), fast:* (west)",
        ),
        (
            VersionSource("", is_chart=True),
            SpecRequest(gpu="T4"),
            "helmChart: no cluster runs Helm",
        ),
    ],
)
def test_a_version_that_cannot_be_run_is_refused_with_what_can(
    source: VersionSource, request_: SpecRequest, told: str
) -> None:
    with pytest.raises(BadRequest, match=re.escape(told)):
        lifecycle.choose_specs([request_], TWO, "a", source, lambda: "id")


def test_an_update_changes_numbers_and_keeps_the_rest() -> None:
    wish = SpecRequest(
        min_instances=0, max_instances=9, gpu="a10g", backend="EAST", clusters=("e1",)
    )
    after = lifecycle.update_deployment(in_state(VersionState.DEGRADED), deployment(), [wish], 60.0)
    assert after.specs == (replace(SPEC, min_instances=0, max_instances=9),)
    assert after.updated_at != "before"
    assert after.created_at == "before"


def test_an_update_that_changes_nothing_is_the_same_deployment() -> None:
    before = deployment()
    wish = SpecRequest(min_instances=1, max_instances=2)
    assert (
        lifecycle.update_deployment(in_state(VersionState.ACTIVE), before, [wish], 60.0) is before
    )


def test_specifications_are_updated_by_id_in_any_order() -> None:
    wishes = [
        SpecRequest(min_instances=0, max_instances=5, spec_id="s2"),
        SpecRequest(min_instances=0, max_instances=4, spec_id="s1"),
    ]
    after = lifecycle.update_deployment(
        in_state(VersionState.ACTIVE), deployment(SPEC, OTHER), wishes, 60.0
    )
    assert [(one.spec_id, one.max_instances) for one in after.specs] == [("s1", 4), ("s2", 5)]


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ([SpecRequest()], "2 GPU specifications"),
        ([SpecRequest(), SpecRequest()], "gpuSpecificationId"),
        ([SpecRequest(spec_id="s1"), SpecRequest(spec_id="s1")], "once"),
        ([SpecRequest(spec_id="s1"), SpecRequest(spec_id="s3")], "none of this"),
        ([SpecRequest(spec_id="s1", gpu="T4"), SpecRequest(spec_id="s2")], "gpu cannot"),
        ([SpecRequest(spec_id="s1", backend="west"), SpecRequest(spec_id="s2")], "backend cannot"),
        (
            [SpecRequest(spec_id="s1", instance_type="x"), SpecRequest(spec_id="s2")],
            "instanceType cannot",
        ),
        (
            [SpecRequest(spec_id="s1", clusters=("e2",)), SpecRequest(spec_id="s2")],
            "clusters cannot",
        ),
        ([SpecRequest(spec_id="s1", min_instances=2), SpecRequest(spec_id="s2")], "above"),
    ],
)
def test_an_update_that_asks_for_more_is_refused(wishes: list[SpecRequest], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        lifecycle.update_deployment(
            in_state(VersionState.ACTIVE), deployment(SPEC, OTHER), wishes, 60.0
        )


@pytest.mark.parametrize("state", list(VersionState))
def test_only_a_deployment_that_runs_or_is_to_run_can_change(state: VersionState) -> None:
    draining = lifecycle.drain_deployment(deployment(), 90.0, 60.0)
    with pytest.raises(BadRequest):
        lifecycle.check_updatable(in_state(state), draining)
    if state in BUSY:
        lifecycle.check_updatable(in_state(state), deployment())
    else:
        with pytest.raises(BadRequest):
            lifecycle.check_updatable(in_state(state), deployment())


def test_a_patch_changes_one_specification_and_takes_members_away() -> None:
    before = deployment(SPEC, OTHER)
    after = lifecycle.patch_deployment(
        before, "s2", (None, 9), {"preferredOrder": None, "x": 1}, 60.0
    )
    assert after.specs[0] is SPEC
    assert after.specs[1] == replace(OTHER, max_instances=9, extra={"clusters": ["e1"], "x": 1})
    assert lifecycle.patch_deployment(before, "s1", (1, None), {}, 60.0) is before
    with pytest.raises(NotFound):
        lifecycle.patch_deployment(before, "s3", (1, None), {}, 60.0)
    with pytest.raises(BadRequest):
        lifecycle.patch_deployment(before, "s1", (3, None), {}, 60.0)


def test_a_drain_may_be_hurried_and_never_gets_more_time() -> None:
    slow = lifecycle.drain_deployment(deployment(), 1000.0, 60.0)
    assert slow.draining_until == 1000
    assert lifecycle.drain_deployment(slow, 70.0, 70.0).draining_until == 70
    assert lifecycle.drain_deployment(slow, 5000.0, 70.0).draining_until == 1000


def test_llm_and_other_versions_do_not_mix() -> None:
    lifecycle.check_family(["DEFAULT", "STREAMING"], "DEFAULT")
    lifecycle.check_family(["LLM"], "LLM")
    with pytest.raises(BadRequest):
        lifecycle.check_family(["DEFAULT"], "LLM")
    with pytest.raises(BadRequest):
        lifecycle.check_family(["LLM"], "STREAMING")
