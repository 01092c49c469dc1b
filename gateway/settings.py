"""Every setting of the gateway; `config/gateway.toml` shows them with units and reasons."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from queueing.nats.settings import GatewayNatsSettings
from queueing.settings import QueueSettings
from runtime.settings import Address, Seconds, Section, load

ENV_PREFIX = "GATEWAY"
API_URL_VARIABLE = "GATEWAY_API_URL"
"""Where the commands that call the API find it: not a setting, though it looks like one."""
API_KEY_VARIABLE = "GATEWAY_API_KEY"
"""Their credential, likewise."""

Value = TypeVar("Value")
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Replicas = Annotated[int, Field(ge=1, le=5)]
HostName = Annotated[
    str, Field(pattern=r"^[0-9A-Za-z._-]*$|^[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*$")
]
"""A name, an IPv4 address or an IPv6 address without brackets; no port."""


class EdgeSettings(Section):
    """Where clients connect and what they may send."""

    listen: Annotated[tuple[Address, ...], Field(min_length=1)] = (Address.parse("127.0.0.1:8080"),)
    """Addresses for clients: host:port, [ipv6]:port or unix:/path."""
    host_suffix: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9._-]+$")] = ""
    """What follows the ids in an invocation host name, like invocation.example.com; empty: any."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the addresses."""
    max_connections: Count = 20_000
    """Connections of one process."""
    max_request_line_bytes: Count = 16_384
    """Longer: 414."""
    max_header_bytes: Count = 65_536
    """More in one head: 431."""
    max_headers: Count = 128
    """More header lines: 431."""
    head_timeout_s: Seconds = 10.0
    """For one request head, from its first byte."""
    body_stall_s: Seconds = 60.0
    """Without a byte of a request body that is being read."""
    write_stall_s: Seconds = 60.0
    """Without a byte taken by a peer that has more to read."""
    idle_timeout_s: Seconds = 75.0
    """For a connection between requests."""


class AttachSettings(Section):
    """Where workers meet the very process that holds their client."""

    listen: Address = Address.parse("127.0.0.1:8090")
    """The first process's address; process n listens n ports higher. Port 0: any."""
    advertise: HostName = ""
    """The host workers are told, when it differs from listen (0.0.0.0, NAT)."""
    max_connections: Count = 20_000
    """Worker connections of one process."""


class StoreSettings(Section):
    """Functions, versions and keys in NATS KV."""

    bucket_prefix: Name = "gateway"
    """Of the buckets' names."""
    replicas: Replicas = 1
    """Of each bucket."""


class ControlSettings(Section):
    """The REST API, and the workers that connect to it."""

    secrets_key_file: Path = Path(".gateway/master.key")
    """32 random bytes that seal secrets and sign tokens; made at first start, the same for all."""
    api_url: Annotated[str, Field(pattern=r"^(http://[^/?#@]+)?$")] = ""
    """As workers and processes without the role api reach it; empty: the first of edge.listen."""
    nats_urls: tuple[str, ...] = ()
    """As instances' workers reach NATS; empty: nats.urls."""
    default_account: str = "nvcf-default"
    """Whose tokens POST /v1/admin/keys makes when it is told no account."""
    deploy_timeout_s: Annotated[Seconds, Field(gt=0)] = 600.0
    """For a deployment to come up; then it is ERROR."""
    drain_timeout_s: Seconds = 3600.0
    """For a graceful undeploy to finish what is queued and running."""
    admin_token_s: Annotated[Seconds, Field(gt=0)] = 43_200.0
    """Life of an admin token."""
    invocation_token_s: Annotated[Seconds, Field(gt=0)] = 900.0
    """Life of an invocation token."""
    worker_lease_s: Annotated[Seconds, Field(ge=3)] = 15.0
    """A worker that is silent for so long is not there."""
    worker_token_s: Annotated[Seconds, Field(ge=60)] = 3600.0
    """Life of a worker's token; it gets the next one in time."""
    project_old_sdks: bool = True
    """SDKs of 2024/25 are told DEGRADING and DEGRADED in the words they know."""


class JwtSettings(Section):
    """An issuer whose JWTs are taken beside API keys."""

    issuer: str = ""
    """The claim iss; empty: none."""
    audiences: tuple[str, ...] = ()
    """One of them must be in the claim aud. Must be set if issuer is."""
    jwks_url: str = ""
    """Where its public keys are. Must be set if issuer is."""
    refresh_s: Annotated[Seconds, Field(gt=0)] = 300.0
    """Between two looks at them."""

    @field_validator("audiences", "jwks_url")
    @classmethod
    def _is_there_for_an_issuer(cls, value: Value, info: ValidationInfo) -> Value:
        if info.data.get("issuer") and not value:
            raise ValueError("must be set, because jwt.issuer is")
        return value


class AdminSettings(Section):
    """Metrics and health for the platform."""

    listen: Address = Address.parse("127.0.0.1:41337")
    """The first process's address; process n listens n ports higher. Port 0: any."""


class DrainSettings(Section):
    """SIGTERM."""

    timeout_s: Seconds = 30.0
    """For what is in flight; then it is reset."""


class LogSettings(Section):
    """Standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    access: bool = True
    """One line per finished invocation."""


class InstanceTypeSettings(Section):
    """A machine, or a share of one, with a GPU."""

    name: Annotated[str, Field(min_length=1)]
    """As deployments name it."""
    description: str = ""
    """For people."""
    is_default: bool = False
    """Taken when a deployment names none; else the first is."""


class GpuSettings(Section):
    """A kind of GPU."""

    name: Annotated[str, Field(min_length=1)]
    """As deployments name it."""
    instance_types: Annotated[tuple[InstanceTypeSettings, ...], Field(min_length=1)]
    """That have it."""


class ClusterSettings(Section):
    """Where instances can run."""

    name: Name
    """The backend that deployments name."""
    backend: Literal["processes"] = "processes"
    """What runs the instances: processes of this machine."""
    accounts: tuple[str, ...] = ()
    """Who may use it; empty: everybody."""
    gpus: tuple[GpuSettings, ...] = ()
    """What it has."""
    images: dict[str, Annotated[str, Field(pattern="^process://.")]] = Field(default_factory=dict)
    """Command template by container image; the image may have *, the first that matches counts."""


class ProvisionSettings(Section):
    """How instances are kept."""

    folder: Path = Path(".gateway/instances")
    """Logs, secrets and records of instances; the same for all gateways of a machine."""
    worker_command: str = ""
    """Runs a worker agent; empty: the one that is installed with us."""
    stop_grace_s: Seconds = 30.0
    """For an instance to finish what it does before it is stopped."""
    idle_s: Seconds = 300.0
    """Without need of it, for an instance above the minimum."""
    restart_first_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """Before an instance that ended is started again; doubled each time."""
    restart_most_s: Annotated[Seconds, Field(gt=0)] = 60.0
    """The longest of these delays."""
    max_failed_starts: Count = 5
    """In a row while a version is DEPLOYING; then the instance has failed."""
    unresponsive_s: Annotated[Seconds, Field(gt=0)] = 60.0
    """Unhealthy or not heard of, for an instance that ran; then it is started again."""


Role = Literal["invocation", "api", "provision"]


class GatewaySettings(Section):
    """All of them."""

    roles: Annotated[tuple[Role, ...], Field(min_length=1)] = ("invocation", "api", "provision")
    """What the processes do: serve invocations, serve the REST API, keep instances."""
    clusters: tuple[ClusterSettings, ...] = ()
    """Where functions can be deployed."""
    edge: EdgeSettings = EdgeSettings()
    attach: AttachSettings = AttachSettings()
    nats: GatewayNatsSettings = GatewayNatsSettings()
    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    control: ControlSettings = ControlSettings()
    jwt: JwtSettings = JwtSettings()
    provision: ProvisionSettings = ProvisionSettings()
    admin: AdminSettings = AdminSettings()
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()


def read_settings(config: Path | None, options: Mapping[str, str] | None = None) -> GatewaySettings:
    """Return the settings of this process; ``options`` win over its environment.

    Raises `runtime.settings.SettingsError`.
    """
    others = {API_URL_VARIABLE, API_KEY_VARIABLE}
    environ = {name: text for name, text in os.environ.items() if name not in others}
    return load(GatewaySettings, config, ENV_PREFIX, environ={**environ, **(options or {})})
