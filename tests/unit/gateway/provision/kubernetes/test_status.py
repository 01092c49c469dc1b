"""What a Deployment and its pods say of an instance."""

from typing import Any

import pytest

from gateway.provision.backend import RunState
from gateway.provision.kubernetes.manifests import FAILURE_ANNOTATION
from gateway.provision.kubernetes.status import GONE_AFTER_S, log_tail, observe

NOW = 1_800_000_000.0


def deployment(replicas: int = 1, **more: Any) -> dict[str, Any]:
    metadata = {"name": "fn-1", **more.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"replicas": replicas}, **more}


def pod(name: str = "p1", deleted: str = "", **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": "2026-11-30T10:00:00Z"}
    if deleted:
        metadata["deletionTimestamp"] = deleted
    return {"metadata": metadata, "status": status}


def inference(**status: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "inference", "restartCount": 0, **status}]}


CRASHED = inference(
    restartCount=3,
    state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
    lastState={"terminated": {"exitCode": 7, "reason": "Error", "message": "line 1\nline 2"}},
)
KILLED = inference(state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, lastState={})


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, ""),
        (inference(state={"waiting": {"reason": "ContainerCreating"}}), ""),
        (
            inference(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}),
            "inference: ImagePullBackOff: no such tag",
        ),
        (
            CRASHED,
            "inference: CrashLoopBackOff: ended with code 7, restarted 3 times\nline 1\nline 2",
        ),
        (KILLED, "inference: OOMKilled, ended with code 137"),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available",
                    }
                ]
            },
            "Unschedulable: 0/3 nodes are available",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on "),
        ({**CRASHED, "conditions": [{"type": "Ready", "status": "True"}]}, ""),
    ],
)
def test_the_pods_own_reason_is_told(status: dict[str, Any], reason: str) -> None:
    found = observe(deployment(), [pod(**status)], NOW)
    assert found is not None
    assert found.state is RunState.UP
    assert found.reason.startswith(reason)
    assert bool(found.reason) is bool(reason)


def test_an_image_whose_name_is_invalid_is_final() -> None:
    status = inference(state={"waiting": {"reason": "InvalidImageName", "message": "A:B:C"}})
    found = observe(deployment(), [pod(**status)], NOW)
    assert found is not None
    assert (found.state, found.is_final) == (RunState.DOWN, True)


def test_why_there_is_no_pod_comes_from_the_deployment() -> None:
    refused = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota",
    }
    found = observe(deployment(status={"conditions": [refused]}), [], NOW)
    assert found is not None
    assert found.reason == "FailedCreate: exceeded quota"


def test_an_ended_instance_is_down_when_its_last_pod_is_gone() -> None:
    ended = deployment(0, metadata={"annotations": {FAILURE_ANNOTATION: "unhealthy for 60 s"}})
    for pods, state in (([pod()], RunState.UP), ([pod(phase="Failed")], RunState.DOWN)):
        found = observe(ended, pods, NOW)
        assert found is not None
        assert (found.state, found.reason) == (state, "unhealthy for 60 s")


def test_a_removed_instance_is_stopping_until_its_last_pod_is_gone() -> None:
    deleted = pod(deleted="2027-01-15T07:00:00Z")
    found = observe(None, [deleted], NOW - GONE_AFTER_S - 3601)
    assert found is not None
    assert found.state is RunState.STOPPING
    # The node of the pod does not answer any more.
    assert observe(None, [deleted], NOW + 3600) is None
    assert observe(None, [], NOW) is None


def test_the_log_is_that_of_the_functions_container() -> None:
    agent = {"initContainerStatuses": [{"name": "worker-agent", "state": {}}]}
    assert log_tail([pod(**agent), pod(**CRASHED)]) == "line 1\nline 2"
    assert log_tail([pod()]) == ""
