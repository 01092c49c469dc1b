"""Every setting of the worker agent, with its unit, default and effect.

`config/worker.toml` lists them all. NVCF's environment variables for workers are accepted too
(``docs/wire.md`` §8.2); the project's own variable overrides NVCF's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from queueing.settings import WorkerBrokerSettings
from runtime.setting_rules import (
    Above,
    After,
    AtLeast,
    AtMost,
    Before,
    ExistingFile,
    Matching,
    SecretText,
)
from runtime.settings import Address, Seconds, Section
from wire.deadlines import VANISHED_S
from wire.ids import parse_uuid
from wire.worker_api import MAX_CONCURRENCY, REGISTRATION_AUDIENCE, claims_of

ENV_PREFIX = "WORKER"


def _uuid(text: str) -> str:
    canonical = parse_uuid(text.encode()) if text else ""
    if canonical is None:
        raise ValueError("not a UUID")
    return canonical


def _level(text: object) -> object:
    """Return the level as Python's logging names it: NVCF writes ``INFO``, and ``WARN``."""
    if not isinstance(text, str):
        return text
    lowered = text.lower()
    return "warning" if lowered == "warn" else lowered


def _stripped(text: object) -> object:
    """Return the text without the line end that a file or a secret of Kubernetes ends with."""
    return text.strip() if isinstance(text, str) else text


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


Uuid = Annotated[str, After(_uuid)]
Count = Annotated[int, AtLeast(1)]
Port = Annotated[int, AtLeast(1), AtMost(65535)]
Protocol = Annotated[Literal["http", "grpc"], Before(_lower)]
"""In any case: NVCF writes ``HTTP`` and ``gRPC``."""
Status = Annotated[int, AtLeast(100), AtMost(599)]
Text = Annotated[str, Matching(r"[^\x00-\x1f\x7f]*", "not have control characters")]
UrlPath = Annotated[str, Matching(r"/[!-~]*", "be a path: / and visible ASCII characters")]


class FunctionSettings(Section):
    """The function version that this agent serves."""

    id: Uuid = ""
    """Function id. Required without a registration token."""
    version_id: Uuid = ""
    """Id of the version whose queue the agent pulls from. Required without a registration token."""
    name: Text = ""
    """Sent as NVCF-FUNCTION-NAME."""


class InstanceSettings(Section):
    """The instance that this agent belongs to; all but id become headers of every request."""

    id: Text = ""
    """Instance id; part of the name of the client at the broker, and sent to control.url."""
    type: Text = ""
    """Sent as NVCF-INSTANCETYPE."""
    backend: Text = ""
    """Sent as NVCF-BACKEND."""
    zone: Text = ""
    """Sent as NVCF-REGION."""
    environment: Text = ""
    """Sent as NVCF-ENV."""
    nspect_id: Text = ""
    """Sent as NVCF-NSPECTID."""
    node: Text = ""
    """Name of the machine, told to control.url; empty: its host name."""
    pod: Text = ""
    """Name of the pod or job, told to control.url."""


class InferenceSettings(Section):
    """The inference server beside the agent. Bodies are streamed and have no size limit here."""

    host: Annotated[
        str,
        Matching(
            r"[A-Za-z0-9._:-]+", "be a host name, or an address without brackets, and no port"
        ),
    ] = "127.0.0.1"
    """Host name or address, IPv6 without brackets."""
    port: Port = 8000
    """Port, without TLS."""
    protocol: Protocol = "http"
    """http: HTTP/1.1. grpc: HTTP/2 without TLS, as gRPC servers speak it."""
    service_name: str = ""
    """Name of a Kubernetes service that replaces host; needs service_namespace."""
    service_namespace: str = ""
    """Namespace of service_name."""
    max_concurrency: Annotated[int, AtLeast(1), AtMost(MAX_CONCURRENCY)] = 1
    """Requests that the inference server processes at the same time; the API may replace it."""
    idle_s: Seconds = 1.0
    """Time for which an unused connection is kept, at most: shorter than the server keeps it."""
    connect_timeout_s: Seconds = 5.0
    """Time to open one connection."""
    cancel_grace_s: Seconds = 120.0
    """Time for which a cancelled request keeps its slot if the server does not end it."""
    asset_dir: Text = "/var/inf/inputAssets"
    """Directory sent as NVCF-ASSET-DIR; the request id is appended."""
    large_output_dir: Text = "/var/inf/response"
    """Directory sent as NVCF-LARGE-OUTPUT-DIR; the request id is appended."""
    max_asset_bytes: Annotated[int, AtLeast(0)] = 10 * 1024**3
    """Bytes of all input assets of one request; a request with more of them fails."""
    compat_disabled: bool = False
    """Pass responses of polled calls as they are, too: see the compatibility mode of workers."""


class HealthSettings(Section):
    """The health probe of the inference server."""

    protocol: Protocol = "http"
    """http: a GET. grpc: ``grpc.health.v1.Health/Check`` of the empty service name, which must be
    SERVING; path and expected_status have no effect."""
    path: UrlPath = "/v2/health/ready"
    """Path of the probe, a GET."""
    port: Port | None = None
    """Port of the probe; unset: inference.port."""
    expected_status: Status = 200
    """Status of a healthy response; any other is unhealthy."""
    timeout_s: Seconds = 31.0
    """Time for one probe."""
    ready_timeout_s: Seconds = 1800.0
    """Time from the start to the first healthy response; then the agent exits with code 1."""
    start_interval_s: Annotated[Seconds, Above(0)] = 0.5
    """Time between two probes before the first healthy response."""
    interval_s: Annotated[Seconds, Above(0)] = 10.0
    """Time between two probes after it."""
    failures: Count = 3
    """Unhealthy probes in a row after which the inference server counts as unhealthy."""


class ControlSettings(Section):
    """The gateway's REST API, where the agent registers and gets its login for the broker."""

    url: Annotated[
        str, Matching(r"(https?://[!-~]+)?", "be an http:// or https:// URL, or empty")
    ] = ""
    """URL, http:// or https://; empty: the agent does not register."""
    token: Annotated[SecretText | None, Before(_stripped)] = None
    """Registration token, with which the agent becomes a new instance; or the first worker token of
    instance.id, which the API renews. Required with url."""
    timeout_s: Annotated[Seconds, Above(0)] = 5.0
    """Time for one call."""


class NvcfSettings(Section):
    """NVIDIA's control plane, in place of a gateway of ours: see `docs/nvidia-workers.md`."""

    control_url: Annotated[
        str, Matching(r"(https?://[!-~]+)?", "be an http:// or https:// URL, or empty")
    ] = ""
    """URL of its gRPC service; empty: none. Needs nats.worker_token and instance.id."""
    account: Text = ""
    """Account of the function, for its metadata."""
    shared_folder: Path = Path("/config/shared")
    """Folder in which the renewed token is kept for the next start."""
    metadata_file: Text = "/var/run/nvcf/info/self"
    """File with the statement that reads the function's metadata; empty: none."""
    secrets_token: SecretText | None = None
    """Any text: the statement that reads the function's secrets is kept in secrets_folder. The
    value is not used."""
    secrets_folder: Path = Path("/config/ess-agent")
    """Folder of the file jwt.token."""
    ca_file: ExistingFile | None = None
    """CA certificates (PEM) that verify the control plane; unset: those of the system."""


class AttachSettings(Section):
    """Connections to the gateway processes that hold the clients."""

    idle_s: Seconds = 30.0
    """Time for which an unused connection is kept. Must be shorter than the gateways keep it."""
    max_idle: Count = 256
    """Unused connections per gateway process; further ones are closed."""
    connect_timeout_s: Seconds = 5.0
    """Time to open one connection."""
    vanished_s: Annotated[Seconds, AtLeast(1)] = VANISHED_S
    """Time without a sign of life from a gateway's machine; then the connection ends."""


class AdminSettings(Section):
    """The listener for metrics and health checks."""

    listen: Address = Address.parse("0.0.0.0:8080")
    """Address; port 0: any free port. All interfaces, because probes come from outside."""
    port: Annotated[int, AtLeast(0), AtMost(65535)] | None = None
    """Replaces the port in listen."""


class DrainSettings(Section):
    """The graceful stop after SIGTERM."""

    timeout_s: Seconds = 110.0
    """Time for running requests; then they are broken off. Shorter than the platform's grace."""
    token: SecretText | None = None
    """What GET /drain at admin.listen needs as bearer token; unset: there is no such page."""


class LogSettings(Section):
    """Log output, on standard output."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Before(_level)] = "info"
    """Lowest level that is written."""
    format: Literal["text", "json"] = "json"
    """One JSON object per line, or text for people."""


class WorkerSettings(WorkerBrokerSettings):
    """All settings of the worker agent; the sections of the queue and its broker are inherited."""

    function: FunctionSettings
    instance: InstanceSettings = InstanceSettings()
    inference: InferenceSettings = InferenceSettings()
    health: HealthSettings = HealthSettings()
    control: ControlSettings = ControlSettings()
    nvcf: NvcfSettings = NvcfSettings()
    attach: AttachSettings = AttachSettings()
    admin: AdminSettings = AdminSettings()
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()

    @property
    def registration_token(self) -> str:
        """The token with which the agent has to become an instance first; empty if it is one."""
        control = self.control
        token = "" if control.token is None else control.token.get_secret_value()
        is_one = claims_of(token).get("aud") == REGISTRATION_AUDIENCE
        return token if control.url and is_one else ""

    @property
    def admin_address(self) -> Address:
        """Where metrics and health checks are served."""
        listen, port = self.admin.listen, self.admin.port
        return listen if port is None else Address(listen.host, port)

    def defects(self) -> Iterator[tuple[str, str]]:
        """Yield what is missing, or does not go together."""
        yield from self._missing_ids()
        if self.nvcf.control_url:
            yield from self._nvcf_defects()

    def _missing_ids(self) -> Iterator[tuple[str, str]]:
        """Yield the ids that are missing: only a registration gives them."""
        missing = [name for name in ("id", "version_id") if not getattr(self.function, name)]
        if not missing or self.registration_token:
            return
        if self.control.url:
            yield "control.token", "must be a registration token, from 'gateway workers token'"
            return
        for name in missing:
            yield f"function.{name}", "must be set"

    def _nvcf_defects(self) -> Iterator[tuple[str, str]]:
        if self.control.url:
            yield "nvcf.control_url", "must be empty when control.url is set"
        if self.queue.backend != "nats":
            yield "nvcf.control_url", "needs the queue on NATS"
        if self.nats.worker_token is None:
            yield "nats.worker_token", "must be set with nvcf.control_url"
        if not self.instance.id:
            yield "instance.id", "must be set with nvcf.control_url"


NVCF_ALIASES = {
    "FUNCTION_ID": "function.id",
    "FUNCTION_VERSION_ID": "function.version_id",
    "FUNCTION_NAME": "function.name",
    "INSTANCE_ID": "instance.id",
    "INSTANCE_TYPE": "instance.type",
    "CLOUD_PROVIDER": "instance.backend",
    "ZONE_NAME": "instance.zone",
    "ICMS_ENVIRONMENT": "instance.environment",
    "SPOT_ENVIRONMENT": "instance.environment",
    "NVCF_NSPECT_ID": "instance.nspect_id",
    "NODE_NAME": "instance.node",
    "SLURMD_NODENAME": "instance.node",
    "POD_NAME": "instance.pod",
    "SLURM_JOB_ID": "instance.pod",
    "INFERENCE_PORT": "inference.port",
    "HELM_CHART_INFERENCE_SERVICE_NAME": "inference.service_name",
    "HELM_CHART_NAMESPACE": "inference.service_namespace",
    "INFERENCE_SERVICE_NAME": "inference.service_name",
    "INFERENCE_NAMESPACE": "inference.service_namespace",
    "MAX_REQUEST_CONCURRENCY": "inference.max_concurrency",
    "V3_BACKWARDS_COMPATIBILITY_DISABLED": "inference.compat_disabled",
    "BASE_ASSET_DIR": "inference.asset_dir",
    "BASE_RESPONSE_DIR": "inference.large_output_dir",
    "INFERENCE_HEALTH_PROTOCOL": "health.protocol",
    "INFERENCE_HEALTH_ENDPOINT": "health.path",
    "INFERENCE_HEALTH_PORT": "health.port",
    "INFERENCE_HEALTH_TIMEOUT": "health.timeout_s",
    "INFERENCE_HEALTH_EXPECTED_RESPONSE_CODE": "health.expected_status",
    "INFERENCE_READY_TIMEOUT": "health.ready_timeout_s",
    "NVCF_FQDN_NATS": "nats.urls",
    "NKEY_SEED": "nats.nkey_seed",
    "NVCF_WORKER_TOKEN": "nats.worker_token",
    "NVCF_FQDN_GRPC": "nvcf.control_url",
    "NCA_ID": "nvcf.account",
    "SHARED_CONFIG_DIR": "nvcf.shared_folder",
    "SECRETS_ASSERTION_TOKEN": "nvcf.secrets_token",
    "ESS_AGENT_CONFIG_DIR": "nvcf.secrets_folder",
    "HEALTH_PORT": "admin.port",
    "LOG_LEVEL": "log.level",
}
"""NVCF's environment variables; of two for one setting the first that is set wins."""
