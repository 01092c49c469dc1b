"""Parts of a function's body that come back in answers as they went in."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.control.dto.fields import (
    WHOLE,
    Body,
    Duration,
    FullUri,
    NcaId,
    Text,
    Uri,
    any_case,
    unique,
)

Protocol = Annotated[Literal["HTTP", "gRPC"], any_case("HTTP", "gRPC")]


def _each_unit_once(value: str) -> str:
    units = [part[-1] for part in value.split(",")]
    if len(set(units)) != len(units):
        raise ValueError("name each unit once")
    return value


def _dashed(value: object) -> object:
    return value.lower().replace("_", "-") if isinstance(value, str) else value


Rate = Annotated[
    str,
    Field(pattern=r"^[1-9][0-9]*-[SMHD](,[1-9][0-9]*-[SMHD])*$"),
    AfterValidator(_each_unit_once),
]
"""Such as ``100-S,5000-H``; seconds, minutes, hours, days."""
TokenRate = Annotated[
    str,
    Field(pattern=r"^[1-9][0-9]*-[SMHDW](,[1-9][0-9]*-[SMHDW])*$"),
    AfterValidator(_each_unit_once),
]
RoutingMethod = Annotated[
    Literal[
        "power-of-two",
        "wait-and-widen",
        "round-robin",
        "random",
        "pulsar",
        "pulsar-wait-and-widen",
        "groq-multiregion",
        "pulsar-multiregion",
    ],
    BeforeValidator(_dashed),
]
_NO_OTHERS = Field(json_schema_extra={"additionalProperties": False})
"""For maps whose names have a form: others are refused, which pydantic does not say by itself."""
Priority = Annotated[int, Field(ge=0, le=4_294_967_295), WHOLE]


class Health(Body):
    """How an instance's readiness is asked for."""

    protocol: Protocol
    uri: Uri
    port: Annotated[int, Field(gt=0, le=65535), WHOLE]
    timeout: Duration
    expected_status_code: Annotated[int, Field(ge=100, le=599), WHOLE]


class EnvironmentEntry(Body):
    """One environment variable of the container. Kept in clear text: secrets go into `secrets`."""

    key: Annotated[str, Field(pattern=r"^[^=\x00]+$")]
    value: Annotated[str, Field(pattern=r"^[^\x00]*$")]


class LlmConfig(Body):
    """What the LLM gateway knows of a model."""

    uris: list[FullUri] | None = None
    token_rate_limit: TokenRate | None = None
    tokenizer: str | None = None
    routing_method: RoutingMethod | None = None


class Model(Body):
    """A model artifact."""

    name: Text
    version: Text | None = None
    uri: FullUri | None = None
    llm_config: LlmConfig | None = None


class Resource(Body):
    """Another artifact that instances get."""

    name: Text
    version: Text
    uri: FullUri


class RateLimit(Body):
    """How often the function may be invoked."""

    rate_limit: Rate | None = None
    exempted_nca_ids: Annotated[list[NcaId], Field(max_length=32)] | None = None
    per_nca_id_rate: Annotated[dict[NcaId, Rate], Field(max_length=32), _NO_OTHERS] | None = None
    sync_check: bool | None = None
    per_user_rate: Rate | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.rate_limit or self.per_nca_id_rate or self.per_user_rate):
            raise ValueError("rateLimit needs one of rateLimit, perNcaIdRate and perUserRate")
        exempted = set(self.exempted_nca_ids or ())
        if exempted and not self.rate_limit:
            raise ValueError("exemptedNcaIds needs rateLimit")
        if exempted & set(self.per_nca_id_rate or ()):
            raise ValueError("an account is both exempted and limited")
        return self


class LlmPriority(Body):
    """Lower is served first."""

    default_priority: Priority | None = None
    per_account_priority: (
        Annotated[dict[NcaId, Priority], Field(max_length=64), _NO_OTHERS] | None
    ) = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.per_account_priority and self.default_priority is None:
            raise ValueError("perAccountPriority needs defaultPriority")
        return self


class LlmInvocationConfig(Body):
    """How invocations of an LLM function are ordered."""

    priority: LlmPriority


class Telemetries(Body):
    """Where logs, metrics and traces go."""

    logs_telemetry_id: Text | None = None
    metrics_telemetry_id: Text | None = None
    traces_telemetry_id: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.logs_telemetry_id or self.metrics_telemetry_id or self.traces_telemetry_id):
            raise ValueError("telemetries names none")
        return self


Tag = Annotated[str, Field(pattern=r"^[a-zA-Z0-9\-_:=]+$", max_length=128)]
Tags = Annotated[
    list[Tag],
    AfterValidator(lambda tags: list(dict.fromkeys(tags))),
    Field(max_length=64),
]
Models = Annotated[list[Model], unique(lambda model: model.name, "the names of models")]
Resources = Annotated[
    list[Resource],
    AfterValidator(lambda items: list({(i.name, i.version, i.uri): i for i in items}.values())),
]
