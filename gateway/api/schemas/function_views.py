"""Views of functions and versions in responses.

Parts that are returned as they were registered are not validated again: the rules may have become
stricter since, and a list must not fail because of an old version.
"""

from typing import Annotated, Literal

from pydantic import Field

from gateway.api.schemas.fields import View
from gateway.api.schemas.parts import LlmInvocationConfig, Telemetries
from gateway.domain.model import VersionState

StateName = Annotated[
    str, Field(json_schema_extra={"enum": [*(state.value for state in VersionState), "DELETED"]})
]


class GpuFactsView(View):
    """A GPU of an instance's machine."""

    name: str
    memory_mib: int | None = Field(default=None, alias="memoryMiB")
    uuid: str | None = None


class WorkerFactsView(View):
    """What an instance's worker tells of itself."""

    node: str | None = None
    """The machine."""
    pod: str | None = None
    """The pod or job."""
    pid: int | None = None
    agent_version: str | None = None
    gpus: list[GpuFactsView] | None = None


class InstanceView(View):
    """A running instance."""

    instance_id: str
    function_id: str
    function_version_id: str
    instance_type: str
    instance_status: Literal["ACTIVE", "STARTING", "RUNNING", "ERRORED", "DELETED"] | None = None
    status: str | None = None
    """Same as instanceStatus, for the CLI."""
    icms_request_id: str
    """The id of the deployment that it was started for."""
    sis_request_id: str
    """Same as icmsRequestId, for SDKs."""
    nca_id: str
    gpu: str
    backend: str
    location: str
    instance_created_at: str
    instance_updated_at: str
    healthy: bool
    """Whether it can serve now."""
    slots: int
    """Requests that it serves at a time."""
    busy: int
    """Requests in progress, as of its last heartbeat."""
    external: Literal[True] | None = None
    """Its worker registered as it: the gateway starts and ends nothing."""
    worker: WorkerFactsView | None = None


class HealthView(View):
    """The readiness check of instances."""

    protocol: str
    uri: str
    port: int
    timeout: str
    expected_status_code: int


class EnvironmentView(View):
    """An environment variable of the container."""

    key: str
    value: str


class ArtifactView(View):
    """An artifact other than a model."""

    name: str
    version: str
    uri: str


class RateLimitView(View):
    """How often the function may be invoked."""

    rate_limit: str | None = None
    exempted_nca_ids: list[str] | None = None
    per_nca_id_rate: dict[str, str] | None = None
    sync_check: bool | None = None
    per_user_rate: str | None = None


class CorsView(View):
    """Which web pages may read the function's responses."""

    origins: list[str]
    credentials: bool | None = None


class LlmConfigView(View):
    """Configuration of a model in the LLM gateway."""

    uris: list[str] | None = None
    token_rate_limit: str | None = None
    tokenizer: str | None = None
    routing_method: str | None = None


class ModelView(View):
    """A model artifact. An LLM function's model may have an empty version and URI."""

    name: str
    version: str = ""
    uri: str = ""
    llm_config: LlmConfigView | None = None


class FunctionView(View):
    """A function version. Accounts that do not own it get only the first members."""

    id: str
    nca_id: str
    version_id: str
    name: str
    status: StateName
    created_at: str
    creation_time: str
    """Same as createdAt, for the CLI."""
    health_uri: str
    function_type: str
    api_body_format: str | None = None
    description: str | None = None
    inference_url: str | None = None
    inference_port: int | None = None
    allow_rerun: bool | None = None
    pass_interim: bool | None = None
    max_body_bytes: int | None = None
    cors: CorsView | None = None
    container_image: str | None = None
    container_args: str | None = None
    container_environment: list[EnvironmentView] | None = None
    helm_chart: str | None = None
    helm_chart_service_name: str | None = None
    models: list[ModelView] | None = None
    resources: list[ArtifactView] | None = None
    health: HealthView | None = None
    tags: list[str] | None = None
    rate_limit: RateLimitView | None = None
    llm_invocation_config: LlmInvocationConfig | None = None
    telemetries: Telemetries | None = None
    secrets: list[str] | None = None
    """Names only."""
    active_instances: list[InstanceView] | None = None
    owned_by_different_account: Literal[True] | None = None
    status_detail: StateName | None = None
    """The true state, if status is replaced for an old SDK."""


class FunctionResponse(View):
    """A function version."""

    function: FunctionView


class FunctionsResponse(View):
    """Versions: public, own, then shared ones, each oldest first."""

    functions: list[FunctionView]
    cursor: str | None = None
    """Present if there are more versions: send it with the next call."""


class FunctionIdsResponse(View):
    """Ids of functions, without duplicates."""

    function_ids: list[str]
