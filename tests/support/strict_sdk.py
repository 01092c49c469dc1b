"""Models of the responses that the SDKs of 2024/25 accept (`docs/wire.md` §16.1).

They validate strictly: a missing required member, an unknown type or an unknown enumeration value
makes the call fail in the client, so a careless rename breaks all their users. Unknown members and
explicit nulls are accepted. `check` chooses the model of any API response by its members. The old
names of states are required only in responses to calls from these SDKs.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from yarl import URL

from gateway.api.sdk_compat import is_old_sdk

OLD_SDK = {"x-sideko-sdk-language": "Python"}
"""Headers that identify such an SDK."""


class Sdk(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", strict=False)


class BodyFormat(Enum):
    CUSTOM = "CUSTOM"
    PREDICT_V2 = "PREDICT_V2"


class Artifact(Sdk):
    name: str
    version: str
    uri: str


class EnvironmentEntry(Sdk):
    key: str
    value: str


class Instance(Sdk):
    instance_id: str | None = None
    function_id: str | None = None
    function_version_id: str | None = None
    instance_type: str | None = None
    instance_status: str | None = None
    sis_request_id: str | None = None
    nca_id: str | None = None
    gpu: str | None = None
    backend: str | None = None
    location: str | None = None
    instance_created_at: str | None = None
    instance_updated_at: str | None = None


class Function(Sdk):
    created_at: str
    health_uri: str
    id: str
    name: str
    nca_id: str
    status: str
    version_id: str
    active_instances: list[Instance] | None = None
    api_body_format: BodyFormat | None = None
    container_args: str | None = None
    container_environment: list[EnvironmentEntry] | None = None
    container_image: str | None = None
    helm_chart: str | None = None
    helm_chart_service_name: str | None = None
    inference_port: int | None = None
    inference_url: str | None = None
    models: list[Artifact] | None = None
    owned_by_different_account: bool | None = None
    resources: list[Artifact] | None = None


class FunctionResponse(Sdk):
    function: Function


class FunctionsResponse(Sdk):
    functions: list[Function]


class FunctionIdsResponse(Sdk):
    function_ids: list[str]


class GpuSpecification(Sdk):
    backend: str
    gpu: str
    max_instances: int
    min_instances: int
    availability_zones: list[str] | None = None
    configuration: dict[str, Any] | None = None
    instance_type: str | None = None
    max_request_concurrency: int | None = None


class DeploymentHealth(Sdk):
    backend: str
    error: str
    gpu: str
    instance_type: str | None = None
    sis_request_id: str | None = None


class Deployment(Sdk):
    deployment_specifications: list[GpuSpecification]
    function_id: str
    function_status: str
    function_version_id: str
    nca_id: str
    request_queue_url: str
    health_info: list[DeploymentHealth] | None = None


class DeploymentResponse(Sdk):
    deployment: Deployment


class Queue(Sdk):
    function_name: str
    function_status: str
    function_version_id: str
    queue_depth: int | None = None


class QueuesResponse(Sdk):
    function_id: str
    queues: list[Queue]


class PositionResponse(Sdk):
    function_id: str
    function_version_id: str
    position_in_queue: int | None = None


class Party(Sdk):
    nca_id: str
    client_id: str | None = None


class Authorized(Sdk):
    id: str
    nca_id: str
    version_id: str | None = None
    authorized_parties: list[Party] | None = None


class AuthorizedResponse(Sdk):
    function: Authorized


class AuthorizedListResponse(Sdk):
    functions: list[Authorized]


class NamedInstanceType(Sdk):
    name: str
    description: str | None = None
    default: bool | None = None


class GroupGpu(Sdk):
    name: str
    instance_types: list[NamedInstanceType] | None = None


class Cluster(Sdk):
    id: str
    name: str
    k8s_version: str = Field(alias="k8sVersion")


class ClusterGroup(Sdk):
    id: str
    name: str
    nca_id: str
    authorized_nca_ids: list[str] | None = None
    gpus: list[GroupGpu] | None = None
    clusters: list[Cluster] | None = None


class ClusterGroupsResponse(Sdk):
    cluster_groups: list[ClusterGroup]


class Problem(BaseModel):
    """A problem document (RFC 9457) with all members of `docs/wire.md` §9.3, none of them null."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str = Field(alias="requestId")


_OLD_STATES = {"ACTIVE", "DEPLOYING", "ERROR", "INACTIVE", "DELETED"}
_STATES = _OLD_STATES | {"DEGRADING", "DEGRADED"}
_OLD_INSTANCE_STATES = {"ACTIVE", "ERRORED", "PREEMPTED", "DELETED"}
_INSTANCE_STATES = _OLD_INSTANCE_STATES | {"RUNNING", "STARTING", "TERMINATED"}

_AUTHORIZED: dict[str, type[Sdk]] = {
    "function": AuthorizedResponse,
    "functions": AuthorizedListResponse,
}
_BY_MEMBER: dict[str, type[Sdk]] = {
    "function": FunctionResponse,
    "functions": FunctionsResponse,
    "functionIds": FunctionIdsResponse,
    "deployment": DeploymentResponse,
    "queues": QueuesResponse,
    "positionInQueue": PositionResponse,
    "clusterGroups": ClusterGroupsResponse,
}


def check(path: str, sent: Mapping[str, str], status: int, content_type: str, body: Any) -> None:
    """Raise `AssertionError` unless a strict client can read the response to a call.

    ``sent`` are the headers of the call. ``body`` is the parsed document, or bytes if the response
    is not JSON.
    """
    if status == 204:
        assert not body, f"{path}: 204 with a body"
        return
    if status >= 400:
        _check_problem(path, status, content_type, body)
        return
    if not path.startswith("/v2/nvcf/"):
        return
    assert content_type == "application/json", f"{path}: {content_type}"
    if isinstance(body, dict):
        _check_body(path, body, is_old=is_old_sdk({k.lower(): v for k, v in sent.items()}))


def _check_problem(path: str, status: int, content_type: str, body: Any) -> None:
    assert content_type == "application/problem+json", f"{path}: {status} as {content_type}"
    try:
        problem = Problem.model_validate(body)
    except ValidationError as error:
        raise AssertionError(f"{path}: {error}") from error
    assert problem.status == status
    assert problem.type.startswith("urn:nvcf:problem-details:"), problem.type
    assert problem.instance == URL(path).raw_path
    assert problem.detail
    assert problem.title


def _check_body(path: str, body: dict[str, Any], *, is_old: bool) -> None:
    known = {**_BY_MEMBER, **_AUTHORIZED} if "/authorizations/" in path else _BY_MEMBER
    model = next((known[name] for name in known if name in body), None)
    if model is None:
        return
    try:
        TypeAdapter(model).validate_python(body)
    except ValidationError as error:
        raise AssertionError(f"{path}: a strict client fails: {error}") from error
    if model in _AUTHORIZED.values():
        return
    states = _OLD_STATES if is_old else _STATES
    instance_states = _OLD_INSTANCE_STATES if is_old else _INSTANCE_STATES
    functions = body.get("functions") or [body.get("function")]
    for holder in [*functions, body.get("deployment"), *body.get("queues", ())]:
        if holder is None:
            continue
        state = holder.get("status", holder.get("functionStatus"))
        assert state in states, f"{path}: {state}"
        for instance in holder.get("activeInstances") or ():
            found = instance.get("instanceStatus")
            assert found is None or found in instance_states, f"{path}: {found}"
