"""Parts of a function's body that responses return as they were registered."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.api.schemas.fields import (
    MAX_URI_CHARS,
    WHOLE,
    Body,
    FullUri,
    NcaId,
    ShortText,
    StrictBody,
    Target,
    Timeout,
    any_case,
    at_most,
    items,
    unique,
    unsupported,
)
from runtime.text_rules import text_rule
from wire.origins import ANY_ORIGIN, MAX_ORIGIN_CHARS, ORIGIN_PATTERN, normal_origin

MAX_VALUE_CHARS = 65_536
"""Maximum characters of a container's arguments, and of the value of an environment variable."""
MAX_ARGUMENT_BYTES = 131_072
"""Linux's limit of bytes of one argument or variable, with the terminating zero byte."""
MAX_VARIABLES = 1000
MAX_ARTIFACTS = 256
"""Maximum number of models, and of resources."""


Protocol = Annotated[Literal["HTTP", "gRPC"], any_case("HTTP", "gRPC")]


def _each_unit_once(value: str) -> str:
    units = [part.strip()[-1] for part in value.split(",")]
    if len(set(units)) != len(units):
        raise ValueError("name each unit once")
    return value


def _use_dashes(value: object) -> object:
    return value.lower().replace("_", "-") if isinstance(value, str) else value


def _one_argument(value: str) -> str:
    if len(value.encode()) >= MAX_ARGUMENT_BYTES:
        raise ValueError(f"must have less than {MAX_ARGUMENT_BYTES} bytes as UTF-8")
    return value


_NO_ZERO_BYTE = text_rule(r"^[^\x00]*$", "not have a zero byte", max_length=MAX_VALUE_CHARS)
Arguments = Annotated[
    str,
    _NO_ZERO_BYTE,
    AfterValidator(_one_argument),
]
"""Less than 131,072 bytes as UTF-8."""
Rate = Annotated[
    str,
    text_rule(
        r"^[1-9][0-9]*-[SMHD](,[ \t]*[1-9][0-9]*-[SMHD])*$",
        "be rates with the unit S, M, H or D, such as 100-S,5000-H",
        max_length=128,
    ),
    AfterValidator(_each_unit_once),
]
"""For example ``100-S, 5000-H``. Units are seconds, minutes, hours and days."""
TokenRate = Annotated[
    str,
    text_rule(
        r"^[1-9][0-9]*-[SMHDW](,[1-9][0-9]*-[SMHDW])*$",
        "be rates with the unit S, M, H, D or W, such as 100-S,5000-H",
        max_length=128,
    ),
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
    BeforeValidator(_use_dashes),
]
_NO_OTHERS = Field(json_schema_extra={"additionalProperties": False})
"""For maps with a pattern of names: other names are refused, which pydantic's schema omits."""
Origin = Annotated[
    str,
    text_rule(
        ORIGIN_PATTERN,
        "be * or an origin such as https://app.example:8443, without a path",
        max_length=MAX_ORIGIN_CHARS,
    ),
    AfterValidator(normal_origin),
]
"""``*``, or ``scheme://host`` or ``scheme://host:port``, without a path."""
Priority = Annotated[int, Field(ge=0, le=4_294_967_295), WHOLE]


class Health(Body):
    """The readiness check of instances."""

    protocol: Protocol
    """HTTP: a GET of `uri`. gRPC: the standard health check, without effect of `uri` and
    `expectedStatusCode`."""
    uri: Target
    port: Annotated[int, Field(gt=0, le=65535), WHOLE]
    timeout: Timeout
    """Longer than PT0S."""
    expected_status_code: Annotated[int, Field(ge=100, le=599), WHOLE]


class EnvironmentEntry(Body):
    """An environment variable of the container. Stored in clear text: put secrets into `secrets`.

    Name and value together have less than 131,071 bytes as UTF-8.
    """

    key: Annotated[
        str,
        text_rule(
            r"^[^=\x00]+$", "not be empty, and have neither = nor a zero byte", max_length=256
        ),
    ]
    value: Annotated[str, _NO_ZERO_BYTE]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _one_argument(f"{self.key}={self.value}")
        return self


_NO_TOKENS = unsupported("this gateway does not count tokens; rateLimit counts calls")
_NO_ROUTING = unsupported("a worker that is free takes the next request")
_NO_ARTIFACTS = "this gateway fetches no artifacts; put them into the image, or let the container"


class LlmConfig(Body):
    """Configuration of a model of an LLM function."""

    uris: Annotated[list[FullUri], items(64)] | None = None
    """Kept and returned; every path of the function can be called."""
    token_rate_limit: Annotated[TokenRate, _NO_TOKENS] | None = None
    """Not supported."""
    tokenizer: Annotated[str, Field(max_length=MAX_URI_CHARS)] | None = None
    """Kept and returned."""
    routing_method: Annotated[RoutingMethod, _NO_ROUTING] | None = None
    """Not supported."""


class Model(Body):
    """A model of an LLM function."""

    name: ShortText
    version: ShortText | None = None
    """Kept and returned."""
    uri: Annotated[FullUri, unsupported(f"{_NO_ARTIFACTS} load the model")] | None = None
    """Not supported."""
    llm_config: LlmConfig | None = None


class Resource(Body):
    """An artifact other than a model."""

    name: ShortText
    version: ShortText
    uri: FullUri


class RateLimit(StrictBody):
    """How often the function may be invoked; a call above that gets 429."""

    rate_limit: Rate | None = None
    """For each calling account."""
    exempted_nca_ids: Annotated[list[NcaId], items(32)] | None = None
    """Accounts to which `rateLimit` does not apply."""
    per_nca_id_rate: (
        Annotated[dict[NcaId, Rate], Field(max_length=32), at_most(32), _NO_OTHERS] | None
    ) = None
    """For single accounts, instead of `rateLimit`."""
    sync_check: bool | None = None
    """Count each call with all gateway processes before it is accepted: exact, but every call waits
    for a round trip. When false or absent, processes count small portions in advance."""
    per_user_rate: Rate | None = None
    """For each caller in addition: an API key, or a client of an invocation token or JWT."""

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
    """Priorities; all the same, because requests are served in their order."""

    default_priority: Priority | None = None
    per_account_priority: (
        Annotated[dict[NcaId, Priority], Field(max_length=64), at_most(64), _NO_OTHERS] | None
    ) = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        of_accounts = self.per_account_priority or {}
        if of_accounts and self.default_priority is None:
            raise ValueError("perAccountPriority needs defaultPriority")
        if any(priority != self.default_priority for priority in of_accounts.values()):
            raise ValueError("perAccountPriority is not supported: requests are served in order")
        return self


class LlmInvocationConfig(Body):
    """How invocations of an LLM function are ordered."""

    priority: LlmPriority


class Telemetries(Body):
    """Destinations of logs, metrics and traces."""

    logs_telemetry_id: ShortText | None = None
    metrics_telemetry_id: ShortText | None = None
    traces_telemetry_id: ShortText | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.logs_telemetry_id or self.metrics_telemetry_id or self.traces_telemetry_id):
            raise ValueError("telemetries needs at least one id")
        return self


class CorsSettings(StrictBody):
    """Which web pages may read the function's responses (CORS).

    It replaces what the container sends; without it the container decides.
    """

    origins: Annotated[list[Origin], items(64)]
    """Origins of pages, such as https://app.example, or * for all. Empty: like no member cors."""
    credentials: bool | None = None
    """Whether pages may send cookies; not for all origins. When absent, false."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.credentials and ANY_ORIGIN in self.origins:
            raise ValueError("credentials needs a list of origins without *")
        return self


Tag = Annotated[
    str,
    text_rule(r"^[a-zA-Z0-9\-_:=]+$", "consist of letters, digits, -, _, : and =", max_length=128),
]
Tags = Annotated[
    list[Tag],
    items(64),
    AfterValidator(lambda tags: list(dict.fromkeys(tags))),
]
Models = Annotated[
    list[Model],
    items(MAX_ARTIFACTS),
    unique(lambda model: model.name, "the names of models"),
]
Resources = Annotated[
    list[Resource], items(MAX_ARTIFACTS), unsupported(f"{_NO_ARTIFACTS} load them")
]
"""Not supported unless empty."""
Environment = Annotated[
    list[EnvironmentEntry],
    items(MAX_VARIABLES),
    unique(lambda entry: entry.key, "the names of environment variables"),
]
