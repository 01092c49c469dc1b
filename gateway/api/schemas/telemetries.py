"""Telemetry endpoints: request bodies and responses (`docs/wire.md` §14.6)."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from gateway.api.schemas.fields import MAX_URI_CHARS, Body, View, any_case, items
from gateway.api.schemas.functions import Secret
from gateway.domain.telemetry_endpoint import GRPC, HTTP, KINDS, PROVIDERS, Kind, Provider
from runtime.text_rules import text_rule

EndpointUrl = Annotated[
    str,
    text_rule(
        r"^(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?$",
        "be a URL, https://host[:port][/path], or host:port for GRPC",
        max_length=MAX_URI_CHARS,
    ),
]
ProtocolName = Annotated[Literal["HTTP", "GRPC"], any_case(HTTP, GRPC)]
ProviderName = Annotated[Provider, any_case(*PROVIDERS)]
TypeName = Annotated[Kind, any_case(*KINDS)]
Types = Annotated[
    list[TypeName],
    items(len(KINDS), at_least=1),
    AfterValidator(lambda types: [kind for kind in KINDS if kind in types]),
]


class CreateTelemetry(Body):
    """A telemetry endpoint."""

    endpoint: EndpointUrl
    """The base of /v1/logs, /v1/metrics and /v1/traces; for GRPC the server."""
    protocol: ProtocolName
    provider: ProviderName
    """Those that do not take OTLP with a header for a credential are refused."""
    types: Types
    secret: Secret
    """Its name is the telemetry's. Its value is a text; for GRAFANA_CLOUD an object with instanceId
    and apiKey."""


class UpdateTelemetrySecret(Body):
    """Another value of the secret of a telemetry endpoint."""

    secret: Secret


class TelemetryView(View):
    """A telemetry endpoint, without its secret."""

    telemetry_id: str
    name: str
    endpoint: str
    protocol: str
    provider: str
    types: list[str]
    created_at: str


class TelemetryResponse(View):
    """A telemetry endpoint."""

    telemetry: TelemetryView


class TelemetriesResponse(View):
    """The telemetry endpoints of the account."""

    telemetries: list[TelemetryView]
