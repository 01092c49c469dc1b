"""Deployments: request and response bodies (`docs/wire.md` §11)."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from gateway.api.schemas.fields import (
    WHOLE,
    Body,
    Duration,
    Flag,
    MaybeText,
    Query,
    ShortText,
    StrictBody,
    Texts,
    Uuid,
    View,
    at_most,
    items,
    unsupported,
)
from gateway.api.schemas.function_views import StateName
from gateway.domain.lifecycle import SpecRequest
from wire.worker_api import MAX_CONCURRENCY

MAX_INSTANCES = 100_000
MAX_MEMBERS = 1000
"""Maximum members of a map of any values."""

Count = Annotated[int, Field(ge=0, le=MAX_INSTANCES), WHOLE]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_INSTANCES), WHOLE]
Values = Annotated[dict[str, JsonValue], Field(max_length=MAX_MEMBERS), at_most(MAX_MEMBERS)]
Concurrency = Annotated[int, Field(ge=1, le=MAX_CONCURRENCY), WHOLE]

_DURATION = re.compile(
    r"P(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+(?:\.[0-9]+)?)S)?)?"
)


def _seconds(duration: str) -> float:
    found = _DURATION.fullmatch(duration)
    days, hours, minutes, seconds = found.groups("0") if found else ("0",) * 4
    return int(days) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _within_an_hour(duration: str) -> str:
    if _seconds(duration) > 3600:
        raise ValueError("at most PT1H")
    return duration


_NO_AUTOSCALING = unsupported("the number of instances follows the requests that wait")
_NO_ZONES = unsupported("instances cannot be placed by availability zone; use backend or clusters")
_NO_ATTRIBUTES = unsupported("clusters have no attributes here; use backend or clusters")


class Stickiness(Body):
    """How long a metric must exceed its threshold."""

    size: Annotated[Duration, AfterValidator(_within_an_hour)]
    threshold: Duration

    @model_validator(mode="after")
    def _check(self) -> Self:
        if _seconds(self.threshold) >= _seconds(self.size):
            raise ValueError("the threshold must be below size")
        return self


class ScaleUp(Body):
    """When and by how much to scale up."""

    metric: MaybeText | None = None
    factor: Annotated[float, Field(gt=1.0, allow_inf_nan=False)]
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    stickiness: Stickiness | None = None


class ScaleDown(Body):
    """When and by how much to scale down."""

    metric: MaybeText | None = None
    factor: Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    stickiness: Stickiness | None = None


class Autoscaling(StrictBody):
    """When to change the number of instances between min and max.

    Not supported unless empty: the number of instances follows the requests that wait.
    """

    scale_up_details: Annotated[ScaleUp, _NO_AUTOSCALING] | None = None
    scale_down_details: Annotated[ScaleDown, _NO_AUTOSCALING] | None = None


class SpecBody(Body):
    """A GPU specification: instances of one kind."""

    gpu: ShortText
    """A name from supportedGpus, in any case."""
    backend: MaybeText | None = None
    """A cluster group. When absent, any group with the GPU. Excludes `clusters`."""
    instance_type: MaybeText | None = None
    """When absent, the default of the GPU."""
    min_instances: Count
    max_instances: PositiveCount
    max_request_concurrency: Concurrency | None = None
    availability_zones: Annotated[list[MaybeText], items(256), _NO_ZONES] | None = None
    """Not supported unless empty."""
    clusters: Texts | None = None
    regions: Texts | None = None
    """Where instances may run: the gateway's own region must be among them, or none is named."""
    attributes: Annotated[Texts, _NO_ATTRIBUTES] | None = None
    """Not supported unless empty."""
    configuration: Values | None = None
    """Only for Helm functions."""
    preferred_order: Annotated[int, Field(ge=1, le=99), WHOLE] | None = None
    """The same in all specifications, because all are equally preferred. When absent, 1."""
    autoscaling_configuration: Autoscaling | None = None
    helm_validation_policy: Values | None = None
    """Only for Helm functions."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError("minInstances is above maxInstances")
        if self.backend and self.clusters:
            raise ValueError("give either backend or clusters, not both")
        return self

    def spec_request(self) -> SpecRequest:
        """Return the request for the domain."""
        extra = self.model_dump(mode="json", by_alias=True, exclude_none=True, include=_EXTRA)
        return SpecRequest(
            gpu=self.gpu,
            backend=(self.backend or "").strip(),
            clusters=tuple(self.clusters or ()),
            instance_type=(self.instance_type or "").strip(),
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            concurrency=self.max_request_concurrency,
            extra={name: value for name, value in extra.items() if value not in ([], {}, "")},
        )


_EXTRA = {
    # Told as they were given: the names in the other members are as configured.
    "gpu",
    "backend",
    "instance_type",
    "availability_zones",
    "clusters",
    "regions",
    "attributes",
    "configuration",
    "preferred_order",
    "autoscaling_configuration",
    "helm_validation_policy",
}


class Deploy(Body):
    """The instances to run."""

    deployment_specifications: Annotated[list[SpecBody], items(64, at_least=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({spec.preferred_order or 1 for spec in self.deployment_specifications}) > 1:
            raise ValueError(
                "preferredOrder must be the same in all deploymentSpecifications: no specification "
                "is preferred to others"
            )
        return self


class SpecUpdate(Body):
    """New numbers for a GPU specification. Other members, if given, must be unchanged."""

    gpu_specification_id: Uuid | None = None
    """Required if the deployment has several GPU specifications."""
    gpu: MaybeText | None = None
    backend: MaybeText | None = None
    clusters: Texts | None = None
    instance_type: MaybeText | None = None
    min_instances: Count
    max_instances: PositiveCount
    max_request_concurrency: Concurrency | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError("minInstances is above maxInstances")
        return self

    def spec_request(self) -> SpecRequest:
        """Return the request for the domain."""
        return SpecRequest(
            gpu=(self.gpu or "").strip(),
            backend=(self.backend or "").strip(),
            clusters=tuple(self.clusters or ()),
            instance_type=(self.instance_type or "").strip(),
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            concurrency=self.max_request_concurrency,
            spec_id=self.gpu_specification_id,
        )


class UpdateDeployment(Body):
    """All GPU specifications of the deployment, with their numbers."""

    deployment_specifications: Annotated[list[SpecUpdate], items(64, at_least=1)]


class PatchSpec(Body):
    """Members of a GPU specification to update; at least one."""

    min_instances: Count | None = None
    max_instances: PositiveCount | None = None
    autoscaling_configuration: Autoscaling | None = None
    autoscaling_configuration_policy: (
        Literal["CUSTOM_CONFIGURATION", "PLATFORM_CONFIGURATION"] | None
    ) = None
    """PLATFORM_CONFIGURATION deletes the autoscaling configuration."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        clears = self.autoscaling_configuration_policy == "PLATFORM_CONFIGURATION"
        given = (self.min_instances, self.max_instances, self.autoscaling_configuration)
        if all(member is None for member in given) and not clears:
            raise ValueError("give at least one member to change")
        if clears and self.autoscaling_configuration is not None:
            raise ValueError("PLATFORM_CONFIGURATION excludes autoscalingConfiguration")
        return self

    def extra(self) -> dict[str, object]:
        """Return the members to replace; `None` deletes a member."""
        if self.autoscaling_configuration_policy == "PLATFORM_CONFIGURATION":
            return {"autoscalingConfiguration": None}
        if self.autoscaling_configuration is None:
            return {}
        return self.model_dump(
            mode="json", by_alias=True, exclude_none=True, include={"autoscaling_configuration"}
        )


class UndeployQuery(Query):
    """How to undeploy."""

    graceful: Flag = False
    """Finish queued and running requests first."""


class SpecView(View):
    """A GPU specification: wanted instances of one kind.

    Names of GPU, backend and instance type are spelled as in the call that created it.
    """

    gpu_specification_id: str
    gpu: str
    backend: str
    """Empty if the call named none."""
    instance_type: str
    min_instances: int
    max_instances: int
    max_request_concurrency: int
    preferred_order: int = 1
    availability_zones: list[str] | None = None
    clusters: list[str] | None = None
    regions: list[str] | None = None
    attributes: list[str] | None = None
    configuration: dict[str, JsonValue] | None = None
    autoscaling_configuration: dict[str, JsonValue] | None = None
    helm_validation_policy: dict[str, JsonValue] | None = None


class HealthInfoView(View):
    """Why instances do not run."""

    icms_request_id: str
    """The id of the deployment, as for instances."""
    sis_request_id: str
    """Same as icmsRequestId, for SDKs."""
    instance_id: str | None = None
    """Absent if the error concerns all instances."""
    gpu: str
    backend: str
    instance_type: str
    error: str


class DeploymentView(View):
    """A deployment."""

    deployment_id: str
    function_id: str
    function_version_id: str
    function_name: str
    nca_id: str
    function_status: StateName
    request_queue_url: str
    deployment_specifications: list[SpecView]
    health_info: list[HealthInfoView] | None = None
    created_at: str
    last_updated_at: str
    status_detail: StateName | None = None
    """The true state, if functionStatus is replaced for an old SDK."""


class DeploymentResponse(View):
    """A deployment."""

    deployment: DeploymentView


class DeploymentsResponse(View):
    """The deployments of an account, by creation of their versions, oldest first."""

    deployments: list[DeploymentView]


class SpecResponse(View):
    """A GPU specification."""

    gpu_specification: SpecView
