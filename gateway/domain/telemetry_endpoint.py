"""Telemetry endpoints of an account: where instances send logs, metrics and traces. Pure.

A version names one for each kind of data in its member ``telemetries``. NVCF runs an OpenTelemetry
collector beside each instance, which has the credential and knows the protocols of eleven
providers. Here the inference server sends itself: it gets the variables with which every
OpenTelemetry SDK finds its exporter (OTEL_EXPORTER_OTLP_*, OpenTelemetry Protocol Exporter). So an
endpoint must take OTLP, and the inference server knows its credential.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args
from urllib.parse import quote, unquote

from gateway.domain.documents import Document
from gateway.errors import BadRequest, NotFound

Kind = Literal["LOGS", "METRICS", "TRACES"]
KINDS: tuple[str, ...] = get_args(Kind)
LOGS, METRICS, TRACES = KINDS
HTTP, GRPC = "HTTP", "GRPC"
OTEL_COLLECTOR, GRAFANA_CLOUD, SERVICENOW = "OTEL_COLLECTOR", "GRAFANA_CLOUD", "SERVICENOW"
Provider = Literal[
    "OTEL_COLLECTOR",
    "GRAFANA_CLOUD",
    "SERVICENOW",
    "AZURE_MONITOR",
    "DATADOG",
    "KRATOS",
    "KRATOS_THANOS",
    "PROMETHEUS",
    "SPLUNK",
    "TIMESTREAM",
    "VICTORIAMETRICS",
]
"""NVCF's; those after `SERVICENOW` do not take OTLP with a header for a credential."""
PROVIDERS: tuple[str, ...] = get_args(Provider)
MAX_ENDPOINTS = 25
"""Default limit per account, as at NVCF."""
_is_field_text = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?").fullmatch
_MEMBERS = {LOGS: "logsTelemetryId", METRICS: "metricsTelemetryId", TRACES: "tracesTelemetryId"}


@dataclass(frozen=True, slots=True)
class TelemetryEndpoint:
    """Where instances send data of the kinds ``types``, and with what.

    ``secret`` is a text or a JSON object, as the provider has it. ``url`` is the base of the paths
    ``/v1/logs``, ``/v1/metrics`` and ``/v1/traces`` for HTTP, and the server for gRPC.
    """

    endpoint_id: str
    name: str
    url: str
    protocol: str
    provider: str
    types: tuple[str, ...]
    created_at: str
    secret: object = field(repr=False)

    def document(self) -> dict[str, object]:
        return {
            "id": self.endpoint_id,
            "name": self.name,
            "url": self.url,
            "protocol": self.protocol,
            "provider": self.provider,
            "types": list(self.types),
            "created_at": self.created_at,
            "secret": self.secret,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            endpoint_id=document.uuid("id"),
            name=document.text("name"),
            url=document.text("url"),
            protocol=document.text("protocol"),
            provider=document.text("provider"),
            types=document.ordered_texts("types"),
            created_at=document.text("created_at"),
            secret=document.value("secret"),
        )

    def header(self) -> tuple[str, str]:
        """Return name and value of the header with the credential. Raises `BadRequest`."""
        match self.provider, self.secret:
            case "GRAFANA_CLOUD", {"instanceId": str(user), "apiKey": str(password)}:
                return "authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
            case "GRAFANA_CLOUD", _:
                raise BadRequest("The secret of GRAFANA_CLOUD is an object: instanceId, apiKey")
            case "SERVICENOW", str(token) if _is_field_text(token):
                return "lightstep-access-token", token
            case "OTEL_COLLECTOR", str(token) if _is_field_text(token):
                return "authorization", f"Bearer {token}"
            case provider, _:
                raise BadRequest(f"The secret of {provider} is a text of printable ASCII")

    def variables(self, kind: str) -> dict[str, str]:
        """Return the variables with which an OpenTelemetry SDK sends ``kind``."""
        prefix = prefix_of(kind)
        url = self.url
        if self.protocol == HTTP:
            # An endpoint of one kind is the whole URL; a collector's exporter gets the base.
            url = f"{url.rstrip('/')}/v1/{kind.lower()}"
        elif "://" not in url:
            url = f"https://{url}"
        name, value = self.header()
        return {
            f"{prefix}ENDPOINT": url,
            f"{prefix}PROTOCOL": "http/protobuf" if self.protocol == HTTP else "grpc",
            # W3C Baggage: a value is percent-encoded.
            f"{prefix}HEADERS": f"{name}={quote(value, safe='')}",
        }


def prefix_of(kind: str) -> str:
    """Return how the names of the variables for ``kind`` begin."""
    return f"OTEL_EXPORTER_OTLP_{kind}_"


def check_endpoint(endpoint: TelemetryEndpoint) -> None:
    """Raise `BadRequest` for an endpoint to which no inference server could send."""
    provider, has_scheme = endpoint.provider, endpoint.url.startswith(("http://", "https://"))
    if provider not in (OTEL_COLLECTOR, GRAFANA_CLOUD, SERVICENOW):
        raise BadRequest(
            f"provider {provider} is not supported: instances send OTLP themselves, which it does "
            "not take; send to a collector of your own (OTEL_COLLECTOR), and from there on"
        )
    if provider == SERVICENOW and endpoint.types != (TRACES,):
        raise BadRequest("SERVICENOW takes TRACES only")
    if provider == GRAFANA_CLOUD and endpoint.protocol != HTTP:
        raise BadRequest("GRAFANA_CLOUD takes OTLP by HTTP only")
    if endpoint.protocol == HTTP and not has_scheme:
        raise BadRequest("endpoint: with protocol HTTP it is a URL, https://… or http://…")
    if endpoint.protocol == GRPC and "/" in endpoint.url.rpartition("://")[2].rstrip("/"):
        raise BadRequest("endpoint: with protocol GRPC it has no path")
    endpoint.header()


def add_endpoint(
    endpoints: Sequence[TelemetryEndpoint], new: TelemetryEndpoint, limit: int
) -> tuple[TelemetryEndpoint, ...]:
    """Return ``endpoints`` with a new one. Raises `BadRequest`."""
    if len(endpoints) >= limit:
        raise BadRequest(f"The account has {len(endpoints)} telemetries; {limit} are allowed")
    if any(endpoint.name == new.name for endpoint in endpoints):
        raise BadRequest("The account has a telemetry whose secret has this name")
    return (*endpoints, new)


def set_endpoint_secret(
    endpoints: Sequence[TelemetryEndpoint], endpoint_id: str, name: str, secret: object
) -> tuple[TelemetryEndpoint, ...]:
    """Return ``endpoints`` with another secret of one. Raises `NotFound`, `BadRequest`."""
    before = find_endpoint(endpoints, endpoint_id)
    if name != before.name:
        raise BadRequest("name: the secret of a telemetry keeps its name, which is the telemetry's")
    changed = replace(before, secret=secret)
    changed.header()
    return tuple(changed if one is before else one for one in endpoints)


def remove_endpoint(
    endpoints: Sequence[TelemetryEndpoint], endpoint_id: str
) -> tuple[TelemetryEndpoint, ...]:
    """Return ``endpoints`` without one. Raises `NotFound`."""
    gone = find_endpoint(endpoints, endpoint_id)
    return tuple(one for one in endpoints if one is not gone)


def find_endpoint(endpoints: Iterable[TelemetryEndpoint], endpoint_id: str) -> TelemetryEndpoint:
    """Return the endpoint with this id. Raises `NotFound`."""
    for endpoint in endpoints:
        if endpoint.endpoint_id == endpoint_id:
            return endpoint
    raise NotFound("The account has no telemetry with this id")


def endpoint_ids(spec: Mapping[str, object]) -> dict[str, str]:
    """Return the ids of the endpoints that a version names, by kind of data."""
    named = spec.get("telemetries")
    if not isinstance(named, Mapping):
        return {}
    found = {kind: named.get(member) for kind, member in _MEMBERS.items()}
    return {kind: one.lower() for kind, one in found.items() if isinstance(one, str) and one}


def check_version(
    spec: Mapping[str, object], endpoints: Iterable[TelemetryEndpoint], variables: Iterable[str]
) -> None:
    """Raise `BadRequest` unless the account has the endpoints that a new version names.

    ``variables`` are the names in its ``containerEnvironment``.
    """
    known = {endpoint.endpoint_id: endpoint for endpoint in endpoints}
    for kind, endpoint_id in endpoint_ids(spec).items():
        endpoint = known.get(endpoint_id)
        if endpoint is None:
            raise BadRequest(f"telemetries.{_MEMBERS[kind]}: the account has no such telemetry")
        if kind not in endpoint.types:
            raise BadRequest(f"telemetries.{_MEMBERS[kind]}: the telemetry does not take {kind}")
        given = [name for name in variables if name.startswith(prefix_of(kind))]
        if given:
            raise BadRequest(
                f"telemetries.{_MEMBERS[kind]}: containerEnvironment has {given[0]}, which it sets"
            )


def exporter_environment(
    spec: Mapping[str, object], endpoints: Iterable[TelemetryEndpoint]
) -> dict[str, str]:
    """Return the variables with which an instance of a version sends. Raises `NotFound`."""
    endpoints = tuple(endpoints)
    variables: dict[str, str] = {}
    for kind, endpoint_id in endpoint_ids(spec).items():
        variables |= find_endpoint(endpoints, endpoint_id).variables(kind)
    return variables


def credentials_in(variables: Mapping[str, str]) -> list[str]:
    """Return what of ``variables`` must not be in a message, as it is sent and as it is written."""
    found = []
    for name, value in variables.items():
        if name.endswith("_HEADERS"):
            sent = value.partition("=")[2]
            written = unquote(sent)
            # The last one is without the scheme, as a program may print it.
            found += [sent, written, written.partition(" ")[2]]
    return found
