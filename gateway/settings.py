"""Every setting of the gateway, with its unit, default and effect.

`config/gateway.toml` lists them all. What bounds the body of an invocation: its size
``edge.max_body_bytes`` and the function's own limit, its pace ``edge.body_stall_s``, and what the
gateway holds of it `UploadSettings`. Bodies of REST calls are bounded by a constant, 1 MiB, in
`gateway.api.limits`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from http1.server.limits import ServerLimits
from queueing.settings import Backend, GatewayBrokerSettings
from runtime.setting_rules import (
    Above,
    After,
    AtLeast,
    AtMost,
    Before,
    ExistingFile,
    Matching,
    NotEmpty,
    SecretText,
)
from runtime.settings import Address, Name, Seconds, Section, load
from wire.deadlines import MAX_INVOCATION_S
from wire.origins import ANY_ORIGIN, normal_origin

ENV_PREFIX = "GATEWAY"
API_URL_VARIABLE = "GATEWAY_API_URL"
"""URL of the REST API for the management commands. Not a setting, despite the prefix."""
API_KEY_VARIABLE = "GATEWAY_API_KEY"
"""Credential of the management commands. Not a setting either."""


def parse_hop(value: object) -> object:
    """Return the network that ``value`` names, or ``unix``. Raises ValueError."""
    try:
        return value if value == "unix" else ip_network(str(value))
    except ValueError:
        raise ValueError(
            f"not a network: {value!r} (write 10.0.0.0/8, 127.0.0.1, fd00::/8 or unix)"
        ) from None


def parse_network(value: object) -> object:
    """Return the network that ``value`` names. Raises ValueError."""
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError(f"not a network: {value!r} (write 10.0.0.0/8 or fd00::/8)") from None


def _not_unix(address: Address) -> Address:
    if address.is_unix:
        raise ValueError("TLS is for host:port")
    return address


TcpAddress = Annotated[Address, After(_not_unix)]
Count = Annotated[int, AtLeast(1)]
Bytes = Annotated[int, AtLeast(0)]
Replicas = Annotated[int, AtLeast(1), AtMost(5)]
TrustedHop = Annotated[IPv4Network | IPv6Network | Literal["unix"], Before(parse_hop)]
Network = Annotated[IPv4Network | IPv6Network, Before(parse_network)]
WebhookHost = Annotated[
    str, Matching(r"(\*\.)?[a-z0-9._-]+", "be a host name in lower case, or *. and a domain")
]
Origin = Annotated[str, After(normal_origin)]
HostName = Annotated[
    str,
    Matching(
        r"[0-9A-Za-z._-]*|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*",
        "be a host name, or an address without brackets, and no port",
    ),
]
"""A name, an IPv4 address or an IPv6 address without brackets; no port."""
ImageTemplate = Annotated[
    str,
    Matching(
        r"process://.(?s:.*)|http://[^/\s]+:[0-9]{1,5}/?",
        "be process:// and a command, or http://HOST:PORT",
    ),
]
"""What runs in place of a container image: a command, or a server that runs already."""

_LIMITS = ServerLimits()
"""The only place of these defaults; their reasons are there too."""


class EdgeSettings(Section):
    """The listener for clients, and its limits."""

    listen: Annotated[tuple[Address, ...], NotEmpty()] = (Address.parse("127.0.0.1:8080"),)
    """Addresses to listen on: host:port, [ipv6]:port or unix:/path."""
    host_suffix: Annotated[
        str,
        Matching(r"[A-Za-z0-9._-]*", "be a domain such as invocation.example.com, or empty"),
    ] = ""
    """Domain after the ids in an invocation host name, e.g. invocation.example.com; empty: any."""
    processes: Annotated[int, AtLeast(1), AtMost(256)] = 1
    """Gateway processes that share the addresses; about one per core."""
    max_connections: Count = _LIMITS.max_connections
    """Open connections per process; a further one gets 503 and is closed."""
    max_request_line_bytes: Count = _LIMITS.max_request_line_bytes
    """Size of a request line (method, target, version) in bytes; a longer one gets 414."""
    max_header_bytes: Count = _LIMITS.max_header_bytes
    """Size of all header lines of one request in bytes; more gets 431."""
    max_headers: Count = _LIMITS.max_headers
    """Number of header lines of one request; more gets 431."""
    max_body_bytes: Bytes = 0
    """Size of an invocation's body in bytes; a larger one gets 413. 0: no limit."""
    cors_origins: tuple[Origin, ...] = (ANY_ORIGIN,)
    """Origins of web pages that may use the REST API and read the gateway's own errors; * is all.
    For the responses of functions, their own settings count (cors)."""
    head_timeout_s: Seconds = _LIMITS.head_timeout_s
    """Time for one request head, from its first byte; then 408."""
    body_stall_s: Seconds = _LIMITS.body_stall_s
    """Time without a byte of a request body that the gateway is reading; then 408."""
    write_stall_s: Seconds = _LIMITS.write_stall_s
    """Time in which a client reads no byte of a pending response; then the connection is reset."""
    idle_timeout_s: Seconds = _LIMITS.idle_timeout_s
    """Time between two requests on a connection; then it is closed."""
    vanished_s: Annotated[Seconds, AtLeast(1)] = _LIMITS.vanished_s
    """Time without a sign of life from a client's machine; then the connection is reset."""
    trusted_hops: tuple[TrustedHop, ...] = ()
    """Networks of the proxies in front whose Forwarded and X-Forwarded headers are believed; unix:
    whoever connects to a Unix socket."""


class TlsSettings(Section):
    """Addresses that speak TLS, with HTTP/2 or HTTP/1.1 as the client chooses (ALPN)."""

    listen: tuple[TcpAddress, ...] = ()
    """Addresses for TLS, beside those of edge.listen: host:port or [ipv6]:port."""
    certificates: tuple[ExistingFile, ...] = ()
    """PEM files, each with a certificate and its chain; read again when one changes. The client's
    name (SNI) chooses; the first one is for all other clients."""
    keys: tuple[ExistingFile, ...] = ()
    """PEM files with the keys, in the same order; none: the certificates' files hold them."""


class UploadSettings(Section):
    """Collection of request bodies before their calls are offered to workers.

    With ``memory_bytes`` and ``spool_bytes`` 0 nothing is collected: bodies flow through.
    """

    memory_bytes: Bytes = 1_048_576
    """Size of a body in bytes up to which it is collected in memory."""
    memory_total_bytes: Bytes = 67_108_864
    """Bytes of all bodies of a process in memory; further ones go to files."""
    spool_bytes: Bytes = 67_108_864
    """Size of a body in bytes up to which it is collected in a file; a larger one flows through."""
    spool_total_bytes: Bytes = 1_073_741_824
    """Bytes of all files of a process; further bodies flow through."""
    spool_folder: Path | None = None
    """Folder for the files, which have no names; unset: the system's for temporary files."""


class RequestsSettings(Section):
    """Detached calls: those that outlive the connection of their client."""

    retention_s: Annotated[Seconds, AtLeast(60)] = 86_400.0
    """Time for which a response is kept, from its end."""
    max_response_bytes: Bytes = 2_147_483_648
    """Size of a response's body in bytes; a larger one fails the call with 507. 0: no limit."""
    account_bytes: Bytes = 10_737_418_240
    """Bytes of an account's responses that a process has recorded within retention_s; above it, its
    detached calls get 429. 0: no limit."""
    max_calls: Count = 20_000
    """Detached calls that a process holds; a further one gets 503."""
    account_keys: Count = 100_000
    """Idempotency-Keys of an account that are kept at a time, each for retention_s; a further one
    gets 429. On NATS this is fixed when the account sends its first key."""


class WebhookSettings(Section):
    """To whom webhooks may go: the URLs that callers name in NVCF-Webhook-URL."""

    hosts: tuple[WebhookHost, ...] = ()
    """Host names that URLs may have, *.example.com for those below a domain; empty: any."""
    private_networks: tuple[Network, ...] = ()
    """Networks that webhooks may reach although they are not of the public Internet."""
    allow_http: bool = False
    """Accept URLs of http too."""


class WebSocketSettings(Section):
    """How long WebSockets may last, once they are open."""

    max_s: Seconds = MAX_INVOCATION_S
    """Time from the request to the end of a WebSocket; then it is ended. 0: no limit."""
    idle_s: Seconds = 0.0
    """Time without a byte in either direction; then the WebSocket is ended. 0: no limit."""


class AttachSettings(Section):
    """The listener for workers. They attach to the very process that holds the client."""

    listen: Address = Address.parse("127.0.0.1:8090")
    """Address of the first process; process n listens n ports higher. Port 0: any free port."""
    advertise: HostName = ""
    """Host in the URL that workers get, if it differs from listen (0.0.0.0, NAT); empty: listen."""
    max_connections: Count = _LIMITS.max_connections
    """Open worker connections per process; a further one gets 503 and is closed."""
    vanished_s: Annotated[Seconds, AtLeast(1)] = _LIMITS.vanished_s
    """Time without a sign of life from a worker's machine; then the connection is reset."""


class StoreSettings(Section):
    """The store: functions, versions, accounts and keys in NATS KV or in Redis."""

    backend: Backend = "nats"
    """Servers that keep it: those of the section nats or of the section redis."""
    bucket_prefix: Name = "gateway"
    """Prefix of the bucket names."""
    replicas: Replicas = 1
    """Copies of each bucket in the NATS cluster; Redis has as many as it has replicas."""


class ObjectSettings(Section):
    """The object store: assets of accounts, and what else is too large for the store."""

    backend: Literal["local", "s3"] = "local"
    """A folder whose signed URLs the gateway serves itself, or a bucket of S3 (pip extra s3)."""
    folder: Path = Path(".gateway/objects")
    """Folder of the local backend; all processes need the same one, on several machines shared."""
    url: Annotated[str, Matching(r"(https?://[^?#@]+)?", "be http(s)://HOST[:PORT], or empty")] = ""
    """Where clients reach the local backend's signed URLs; empty: as the caller called the API."""
    bucket: str = ""
    """Bucket of the backend s3, which must exist."""
    endpoint_url: Annotated[
        str, Matching(r"(https?://[^?#@]+)?", "be http(s)://HOST[:PORT], or empty")
    ] = ""
    """Server of the backend s3, which clients and workers reach too; empty: AWS."""
    region: str = ""
    """Region of the bucket; empty: as the environment says."""
    access_key: str = ""
    """Access key id; empty: the AWS tools' environment, files and roles."""
    secret_key: SecretText | None = None
    """Secret access key."""

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what the backend needs and does not have."""
        if self.backend == "s3" and not self.bucket:
            yield "bucket", "must be set, because objects.backend is s3"
        if bool(self.access_key) != bool(self.secret_key):
            yield "secret_key", "must be set together with objects.access_key"


class AssetSettings(Section):
    """NVCF's assets: files that accounts upload as input for calls."""

    max_bytes: Count = 5 * 1024**3
    """Bytes of one asset; a larger upload gets 413. A PUT to S3 has at most 5 GiB."""
    account_assets: Count = 1000
    """Assets of one account; a further one gets 400."""
    account_bytes: Count = 50 * 1024**3
    """Bytes of all assets of one account; further ones get 400."""
    lifetime_s: Annotated[Seconds, Above(0)] = 86_400.0
    """Time from its upload after which an asset is deleted."""


class ControlSettings(Section):
    """The REST API, and the registration of workers."""

    secrets_key_file: Path = Path(".gateway/master.key")
    """File with the master key (32 random bytes), which encrypts secrets and signs tokens. Created
    at the first start; every process with the role api or provision needs the same file."""
    secrets_key: SecretText | None = None
    """The master key, 32 random bytes in base64, in place of secrets_key_file."""
    bootstrap_secret: SecretText | None = None
    """The bootstrap secret, nvboot- and 43 to 128 letters, digits, - and _. Unset: the first start
    makes one and prints it."""
    bootstrap_secret_file: Path | None = None
    """File with the bootstrap secret, in place of bootstrap_secret; read at each start."""
    api_url: Annotated[str, Matching(r"(http://[^/?#@]+)?", "be http://HOST:PORT, or empty")] = ""
    """URL of the REST API for workers, and for processes without the role api, which forward API
    calls there; empty: the first address of edge.listen."""
    nats_urls: tuple[str, ...] = ()
    """NATS URLs that workers get; empty: nats.urls."""
    redis_urls: tuple[str, ...] = ()
    """Redis URLs that workers get, with queue.backend redis; empty: redis.urls."""
    default_account: str = "nvcf-default"
    """Account of the token that POST /v1/admin/keys makes when the request names none."""
    deploy_timeout_s: Annotated[Seconds, Above(0)] = 600.0
    """Time for a deployment to become ACTIVE; then it is ERROR."""
    drain_timeout_s: Seconds = 3600.0
    """Time for a graceful undeploy to finish queued and running requests."""
    admin_token_s: Annotated[Seconds, Above(0)] = 43_200.0
    """Lifetime of an admin token."""
    invocation_token_s: Annotated[Seconds, Above(0)] = 900.0
    """Lifetime of an invocation token."""
    worker_lease_s: Annotated[Seconds, AtLeast(3)] = 15.0
    """Time without a heartbeat after which a worker counts as disconnected."""
    worker_token_s: Annotated[Seconds, AtLeast(60)] = 3600.0
    """Lifetime of a worker token; the worker gets the next one before it expires."""
    project_old_sdks: bool = True
    """Show the SDKs of 2024/25 states that they know: they know neither DEGRADING nor DEGRADED."""

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what is said twice."""
        if self.bootstrap_secret and self.bootstrap_secret_file:
            yield "bootstrap_secret_file", "cannot be set together with control.bootstrap_secret"


class WorkerGrpcSettings(Section):
    """gRPC nvcf.Worker, with which NVIDIA's workers register (docs/nvidia-workers.md)."""

    listen: tuple[TcpAddress, ...] = ()
    """Addresses of the service, which all processes with the role api share; none: it is off."""
    certificate: ExistingFile | None = None
    """PEM file with a certificate and its chain, read again when it changes; unset: no TLS."""
    key: ExistingFile | None = None
    """PEM file with the key of the certificate."""

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what TLS needs and does not have."""
        for name, other in (("certificate", "key"), ("key", "certificate")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                yield name, f"must be set, because worker_grpc.{other} is"


class JwtSettings(Section):
    """An issuer whose JWTs are accepted in addition to API keys."""

    issuer: str = ""
    """Required value of the claim iss; empty: no JWTs are accepted."""
    audiences: tuple[str, ...] = ()
    """Accepted audiences, of which the claim aud must name one. Required with issuer."""
    jwks_url: str = ""
    """URL of the issuer's public keys (JWKS). Required with issuer."""
    refresh_s: Annotated[Seconds, Above(0)] = 300.0
    """Time between two fetches of the keys."""

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what an issuer needs and does not have."""
        for name in ("audiences", "jwks_url"):
            if self.issuer and not getattr(self, name):
                yield name, "must be set, because jwt.issuer is"


class AdminSettings(Section):
    """The listener for metrics and health checks."""

    listen: Address = Address.parse("127.0.0.1:41337")
    """Address of the first process; process n listens n ports higher. Port 0: any free port."""


class DrainSettings(Section):
    """The graceful stop after SIGTERM."""

    grace_s: Seconds = 5.0
    """Time in which a process that is not ready any more still accepts and keeps connections."""
    timeout_s: Seconds = 30.0
    """Time after that for invocations in flight; then their connections are reset."""


class LogSettings(Section):
    """Log output, on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is written."""
    format: Literal["text", "json"] = "json"
    """One JSON object per line, or text for people."""
    access: bool = True
    """Write one line per finished invocation, and lines of refused calls."""


Quantity = Annotated[
    str,
    Matching(
        r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?", 'be a quantity of Kubernetes, such as "8" or "64Gi"'
    ),
]


class InstanceTypeSettings(Section):
    """An instance type: a machine, or a share of one, with a GPU."""

    name: Annotated[str, NotEmpty()]
    """Name that deployments use."""
    description: str = ""
    """Text for people; has no effect."""
    is_default: bool = False
    """Use it for deployments that name no instance type; without a default the first is used."""
    gpus: Annotated[int, AtLeast(0)] = 1
    """Kubernetes only: GPUs of a pod (kubernetes.gpu_resource); 0: it asks for none."""
    resources: dict[str, Quantity] = field(default_factory=dict)
    """Kubernetes only: requests of the function's container, and limits of all but cpu."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Kubernetes only: labels of the nodes that have this type."""


class GpuSettings(Section):
    """A GPU model of a cluster."""

    name: Annotated[str, NotEmpty()]
    """Name that deployments use."""
    instance_types: Annotated[tuple[InstanceTypeSettings, ...], NotEmpty()]
    """Instance types that offer this GPU."""


class TolerationSettings(Section):
    """A taint that pods tolerate."""

    key: str = ""
    """Key of the taint; empty, with the operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """Equal: the taint's value must be `value`."""
    value: str = ""
    """Value of the taint."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint; empty: every effect."""


class KubernetesSettings(Section):
    """Where and how the pods of a cluster of the backend "kubernetes" run."""

    kubeconfig: Path | None = None
    """File with the login; unset: the service account of the gateway's own pod."""
    context: str = ""
    """Context of the kubeconfig; empty: its current one."""
    namespace: Annotated[
        str, Matching(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "be the name of a namespace")
    ] = "default"
    """Namespace of all objects; it must exist."""
    agent_image: str = ""
    """Image of the worker agent (Dockerfile, target worker-agent). Required."""
    gpu_resource: str = "nvidia.com/gpu"
    """Extended resource that stands for one GPU."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets of the namespace with logins to registries."""
    service_account: str = ""
    """Service account of the pods, whose token they do not get; empty: default."""
    tolerations: tuple[TolerationSettings, ...] = ()
    """Taints that the pods tolerate."""


class ClusterSettings(Section):
    """A cluster on which instances can run."""

    name: Name
    """Name that deployments give as backend."""
    backend: Literal["processes", "external", "kubernetes"] = "processes"
    """processes: instances are processes of this machine, started by the gateway. external: workers
    that others start register as instances. kubernetes: instances are pods."""
    accounts: tuple[str, ...] = ()
    """Accounts that may use it; empty: every account."""
    gpus: tuple[GpuSettings, ...] = ()
    """GPUs that it offers."""
    images: dict[str, ImageTemplate] = field(default_factory=dict)
    """Command or running server per container image, which may contain *; the first match wins."""
    kubernetes: KubernetesSettings = KubernetesSettings()
    """Where and how pods run."""

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what the backend needs and does not have."""
        if self.backend == "kubernetes" and not self.kubernetes.agent_image:
            yield "kubernetes.agent_image", 'must be set, because backend is "kubernetes"'


class ProvisionSettings(Section):
    """How instances are started, restarted and stopped."""

    folder: Path = Path(".gateway/instances")
    """Folder for logs, secrets and records of instances; shared by all gateways of a machine."""
    worker_command: str = ""
    """Command that runs a worker agent, split like a shell's words; empty: the installed one."""
    stop_grace_s: Seconds = 30.0
    """Time for an instance to finish its requests before it is killed."""
    at_stop: Literal["keep", "end"] = "keep"
    """What becomes of this machine's instances when the gateway stops."""
    idle_s: Seconds = 300.0
    """Time in which an instance above the minimum was not needed; then it is stopped."""
    restart_first_s: Annotated[Seconds, Above(0)] = 1.0
    """Delay before an instance that ended is restarted; doubled after each further failure."""
    restart_most_s: Annotated[Seconds, Above(0)] = 60.0
    """Upper bound of this delay."""
    max_failed_starts: Count = 5
    """Failed starts in a row, while the version is DEPLOYING, after which an instance is FAILED."""
    unresponsive_s: Annotated[Seconds, Above(0)] = 60.0
    """Time for which a running instance may be unhealthy or silent; then it is restarted."""


Role = Literal["invocation", "api", "provision"]


class GatewaySettings(GatewayBrokerSettings):
    """All settings of the gateway; the sections of the queue and its broker are inherited."""

    roles: Annotated[tuple[Role, ...], NotEmpty()] = ("invocation", "api", "provision")
    """Tasks of the processes: serve invocations, serve the REST API, run the instances."""
    clusters: tuple[ClusterSettings, ...] = ()
    """Clusters on which functions can be deployed."""
    edge: EdgeSettings = EdgeSettings()
    tls: TlsSettings = TlsSettings()
    upload: UploadSettings = UploadSettings()
    requests: RequestsSettings = RequestsSettings()
    webhooks: WebhookSettings = WebhookSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    attach: AttachSettings = AttachSettings()
    store: StoreSettings = StoreSettings()
    objects: ObjectSettings = ObjectSettings()
    assets: AssetSettings = AssetSettings()
    control: ControlSettings = ControlSettings()
    worker_grpc: WorkerGrpcSettings = WorkerGrpcSettings()
    jwt: JwtSettings = JwtSettings()
    provision: ProvisionSettings = ProvisionSettings()
    admin: AdminSettings = AdminSettings()
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()


def read_settings(config: Path | None, options: Mapping[str, str] | None = None) -> GatewaySettings:
    """Return the settings of this process.

    ``options`` are environment variables that override those of the process; command-line options
    arrive this way. Raises `runtime.settings.SettingsError`.
    """
    others = {API_URL_VARIABLE, API_KEY_VARIABLE}
    environ = {name: text for name, text in os.environ.items() if name not in others}
    return load(GatewaySettings, config, ENV_PREFIX, environ={**environ, **(options or {})})
