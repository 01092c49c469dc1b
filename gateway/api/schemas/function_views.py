"""What is told of functions and versions.

Parts that come back as they went in are told as they are stored: rules for new ones may have become
stricter since, and a list must not fail for an old one.
"""

from typing import Annotated, Literal

from pydantic import Field

from gateway.api.schemas.fields import View
from gateway.api.schemas.parts import LlmInvocationConfig, Telemetries
from gateway.domain.model import State

StateName = Annotated[
    str, Field(json_schema_extra={"enum": [*(state.value for state in State), "DELETED"]})
]


class InstanceView(View):
    """One running instance."""

    instance_id: str
    function_id: str
    function_version_id: str
    instance_type: str
    instance_status: Literal["ACTIVE", "STARTING", "RUNNING", "ERRORED", "DELETED"] | None = None
    status: str | None = None
    """As instanceStatus, for the CLI."""
    icms_request_id: str
    """The deployment, for which it was started."""
    sis_request_id: str
    """As icmsRequestId, for the SDKs."""
    nca_id: str
    gpu: str
    backend: str
    location: str
    instance_created_at: str
    instance_updated_at: str


class HealthView(View):
    """How an instance's readiness is asked for."""

    protocol: str
    uri: str
    port: int
    timeout: str
    expected_status_code: int


class EnvironmentView(View):
    """One environment variable of the container."""

    key: str
    value: str


class ArtifactView(View):
    """Another artifact that instances get."""

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


class LlmConfigView(View):
    """What the LLM gateway knows of a model."""

    uris: list[str] | None = None
    token_rate_limit: str | None = None
    tokenizer: str | None = None
    routing_method: str | None = None


class ModelView(View):
    """A model artifact. Old SDKs need all three texts, which an LLM function's may lack."""

    name: str
    version: str = ""
    uri: str = ""
    llm_config: LlmConfigView | None = None


class FunctionView(View):
    """A function version. Accounts that do not own it see the first members only."""

    id: str
    nca_id: str
    version_id: str
    name: str
    status: StateName
    created_at: str
    creation_time: str
    """As createdAt, for the CLI."""
    health_uri: str
    function_type: str
    api_body_format: str | None = None
    description: str | None = None
    inference_url: str | None = None
    inference_port: int | None = None
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
    """The true state, where status has been put into the words of an old SDK."""


class FunctionAnswer(View):
    """One version."""

    function: FunctionView


class FunctionsAnswer(View):
    """Versions, oldest first within public, private and shared ones."""

    functions: list[FunctionView]
    cursor: str | None = None
    """There is more: give it with the next call."""


class FunctionIdsAnswer(View):
    """Functions, each once."""

    function_ids: list[str]
