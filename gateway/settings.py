"""Every setting of the gateway; `config/gateway.toml` shows them with units and reasons."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FilePath, SecretStr

from queueing.nats.login import LoginError, parse_server
from runtime.settings import Address, Seconds, Section

ENV_PREFIX = "GATEWAY"

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Replicas = Annotated[int, Field(ge=1, le=5)]
HostName = Annotated[
    str, Field(pattern=r"^[0-9A-Za-z._-]*$|^[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*$")
]
"""A name, an IPv4 address or an IPv6 address without brackets; no port."""


def _nats_url(url: str) -> str:
    try:
        parse_server(url)
    except LoginError as error:
        # It may hold a password: not shown.
        raise ValueError("not a NATS server (write nats://host:port or tls://host:port)") from error
    return url


NatsUrl = Annotated[str, AfterValidator(_nats_url)]


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


class NatsSettings(Section):
    """The NATS servers behind queue and store."""

    urls: Annotated[tuple[NatsUrl, ...], Field(min_length=1)] = ("nats://127.0.0.1:4222",)
    """nats:// or tls:// URLs of one cluster."""
    credentials_file: Path | None = None
    """User JWT and nkey seed."""
    token: SecretStr | None = None
    """Instead of credentials."""
    user: str = ""
    """Instead of credentials, with password."""
    password: SecretStr | None = None
    """Of user."""
    ca_file: FilePath | None = None
    """Certificates that the servers' are checked against; unset: the system's."""


class QueueSettings(Section):
    """The function queues."""

    region: Name = "local"
    """Part of stream and subject names; the value of nvcf-invocation-region."""
    max_messages: Count = 100_000
    """Waiting requests per version; more are answered 429."""
    lease_s: Annotated[Seconds, Field(ge=1)] = 30.0
    """A worker that is silent for so long loses its request to another one."""
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = 3
    """How often one request is given to workers; then it is answered 502."""
    replicas: Replicas = 1
    """Of each stream."""


class StoreSettings(Section):
    """Functions, versions and keys in NATS KV."""

    bucket_prefix: Name = "gateway"
    """Of the buckets' names."""
    replicas: Replicas = 1
    """Of each bucket."""


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


class GatewaySettings(Section):
    """All of them."""

    edge: EdgeSettings = EdgeSettings()
    attach: AttachSettings = AttachSettings()
    nats: NatsSettings = NatsSettings()
    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    admin: AdminSettings = AdminSettings()
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()
