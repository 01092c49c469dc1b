"""Functions and versions: request bodies and queries (`docs/wire.md` §10)."""

from typing import Annotated, Literal, Self

import orjson
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from gateway.api.schemas.fields import (
    SPLIT,
    WHOLE,
    Body,
    Flag,
    FullUri,
    Limit,
    Query,
    ShortText,
    Target,
    any_case,
    items,
    unique,
)
from gateway.api.schemas.parts import (
    MAX_ARTIFACTS,
    Arguments,
    CorsSettings,
    Environment,
    Health,
    LlmConfig,
    LlmInvocationConfig,
    Models,
    RateLimit,
    Resources,
    Tags,
    Telemetries,
)
from gateway.domain.grpc import is_grpc
from gateway.domain.lifecycle import DEFAULT_PORT
from runtime.text_rules import text_rule

MAX_SECRET_CHARS = 32_768
MAX_SECRETS = 256
MAX_BODY_BYTES = 2**53 - 1
"""The largest whole number that every JSON reader keeps."""

BodyFormat = Annotated[Literal["CUSTOM", "PREDICT_V2"], any_case("CUSTOM", "PREDICT_V2")]


def _not_streaming(value: object) -> object:
    if isinstance(value, str) and value.upper() == "STREAMING":
        raise ValueError("STREAMING functions cannot be served; HTTP streams need type DEFAULT")
    return value


FunctionType = Annotated[
    Literal["DEFAULT", "LLM"], any_case("DEFAULT", "LLM"), BeforeValidator(_not_streaming)
]
VisibilityName = Annotated[
    Literal["public", "private", "authorized"], any_case("public", "private", "authorized")
]


def _within_bounds(value: JsonValue) -> JsonValue:
    text = value.strip() if isinstance(value, str) else orjson.dumps(value).decode()
    if not 1 <= len(text) <= MAX_SECRET_CHARS:
        raise ValueError(f"a secret has 1 to {MAX_SECRET_CHARS} characters")
    if value is None:
        raise ValueError("a secret is a text or JSON, not null")
    return value


SecretName = Annotated[
    str,
    text_rule(
        r"^[a-z0-9A-Z][a-z0-9A-Z_.\-]*$",
        "consist of letters, digits, -, _ and ., and begin with a letter or digit",
        max_length=48,
    ),
]


class Secret(Body):
    """A secret that instances get as a file. Its value is never returned."""

    name: SecretName
    value: Annotated[
        JsonValue,
        AfterValidator(_within_bounds),
        Field(json_schema_extra={"not": {"type": "null"}, "pattern": r"\S"}),
    ]


class CreateFunction(Body):
    """A new version, with one source: a container image, or a Helm chart.

    LLM functions have models, others have none. The body has at most 917,504 bytes as JSON.
    """

    name: Annotated[
        str,
        Field(min_length=1),
        text_rule(
            r"^[a-z0-9A-Z][a-z0-9A-Z\-_]*$",
            "consist of letters, digits, - and _, and begin with a letter or digit",
            max_length=128,
        ),
    ]
    inference_url: Target
    """Path to invoke if the caller gives none. ``/grpc`` makes it a gRPC function."""
    container_image: FullUri | None = None
    models: Models | None = None
    helm_chart: FullUri | None = None
    helm_chart_service_name: ShortText | None = None
    inference_port: Annotated[int, Field(ge=0, le=65535), WHOLE] | None = None
    """0 counts as absent."""
    max_body_bytes: Annotated[int, Field(ge=1, le=MAX_BODY_BYTES), WHOLE] | None = None
    """Maximum bytes of an invocation's body; a larger one gets 413. The gateway may have a smaller
    limit."""
    health_uri: Target | None = None
    """Deprecated: use `health`."""
    health: Health | None = None
    container_args: Arguments | None = None
    """Less than 131,072 bytes as UTF-8."""
    container_environment: Environment | None = None
    resources: Resources | None = None
    """Not supported unless empty."""
    api_body_format: BodyFormat | None = None
    """Kept and returned; the body of an invocation is passed on as it is."""
    function_type: FunctionType | None = None
    tags: Tags | None = None
    description: Annotated[str, Field(max_length=256)] | None = None
    """When absent or empty, the name."""
    secrets: (
        Annotated[
            list[Secret],
            items(MAX_SECRETS),
            unique(lambda secret: secret.name, "the names of secrets"),
        ]
        | None
    ) = None
    rate_limit: RateLimit | None = None
    llm_invocation_config: LlmInvocationConfig | None = None
    telemetries: Telemetries | None = None
    cors: CorsSettings | None = None
    allow_rerun: bool | None = None
    """Whether a POST or PATCH may be run again, once, if an inference server broke off before it
    responded. When absent, true. Other methods may be run again in any case."""
    pass_interim: bool | None = None
    """Whether clients get the container's interim responses (1xx, as 103 Early Hints), except 100.
    When absent, false: some clients take one for the response."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_source()
        self._check_models()
        return self

    def _check_source(self) -> None:
        if self.helm_chart:
            if self.container_image or self.container_args or self.container_environment:
                raise ValueError("helmChart excludes container members")
        elif not self.container_image:
            raise ValueError("give containerImage or helmChart")
        if bool(self.helm_chart) != bool(self.helm_chart_service_name):
            raise ValueError("give both helmChart and helmChartServiceName, or neither")

    def _check_models(self) -> None:
        is_llm = self.function_type == "LLM"
        models = self.models or []
        if is_llm and not models:
            raise ValueError("an LLM function needs models")
        if models and not is_llm:
            raise ValueError(
                "models is for LLM functions: this gateway fetches no artifacts; put the model "
                "into the image, or let the container load it"
            )
        if not all(model.llm_config and model.llm_config.uris for model in models):
            raise ValueError("each model of an LLM function needs llmConfig with uris")
        if self.llm_invocation_config and not is_llm:
            raise ValueError("llmInvocationConfig is for LLM functions")

    def spec(self) -> dict[str, object]:
        """Return the spec to store: the form of the API, with defaults, without secrets."""
        stored: dict[str, object] = self.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"secrets"}
        )
        if not self.inference_port:
            stored.pop("inferencePort", None)
        if self.cors is not None and not self.cors.origins:
            del stored["cors"]
        for name in ("models", "resources", "tags", "containerEnvironment"):
            if not stored.get(name, True):
                del stored[name]
        stored["description"] = self.description or self.name
        stored.setdefault("apiBodyFormat", "CUSTOM")
        stored.setdefault("functionType", "DEFAULT")
        health = stored.setdefault("health", self._default_health())
        if isinstance(health, dict):
            stored["healthUri"] = health["uri"]
        return stored

    def _default_health(self) -> dict[str, object]:
        return {
            "protocol": "gRPC" if is_grpc(self.inference_url) else "HTTP",
            "uri": self.health_uri or "/v2/health/ready",
            "port": self.inference_port or DEFAULT_PORT,
            "timeout": "PT10S",
            "expectedStatusCode": 200,
        }


class ModelUpdate(Body):
    """A new LLM configuration for a model of the version."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: ShortText
    llm_config: LlmConfig


class UpdateMetadata(Body):
    """Metadata to update; at least one member."""

    tags: Tags | None = None
    description: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    rate_limit: RateLimit | None = None
    """In place of the present one; null takes it away."""
    model_updates: (
        Annotated[
            list[ModelUpdate],
            items(MAX_ARTIFACTS, at_least=1),
            unique(lambda update: update.model_name, "the names of models"),
        ]
        | None
    ) = None
    llm_invocation_config: LlmInvocationConfig | None = None
    cors: CorsSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = type(self).model_fields
        if not self.sets_rate_limit and all(getattr(self, name) is None for name in names):
            members = ", ".join(str(field.alias) for field in names.values())
            raise ValueError(f"give one of {members}")
        return self

    @property
    def sets_rate_limit(self) -> bool:
        """Whether the rate limit changes: null is none, and only an absent member is no change."""
        return "rate_limit" in self.model_fields_set


class UpdateRateLimit(Body):
    """A new rate limit."""

    rate_limit: RateLimit


Visibilities = Annotated[list[VisibilityName], items(16), SPLIT]


class IdsQuery(Query):
    """The functions to list."""

    visibility: Visibilities = Field(default_factory=list)
    """Repeated or separated by commas; all when absent."""


class ListQuery(IdsQuery):
    """The versions to list, and the page."""

    limit: Limit | None = None
    """When absent, all versions."""
    cursor: Annotated[str, Field(max_length=256)] | None = None
    """The cursor of the previous page."""


class VersionsQuery(Query):
    """The page of a function's versions."""

    limit: Limit | None = None
    cursor: Annotated[str, Field(max_length=256)] | None = None


class DetailsQuery(Query):
    """What to include."""

    include_secrets: Flag = True
    """The names of secrets; needs the scope list_functions_details."""
