"""Every setting of the worker agent; `config/worker.toml` shows them with units and reasons.

The names that NVCF's platform sets in a worker's environment are accepted as they are
(``spec/worker.md`` §8); our own name wins over NVCF's.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from queueing.nats.settings import WorkerNatsSettings
from runtime.settings import Address, Seconds, Section
from wire.ids import parse_uuid
from wire.worker_api import MAX_CONCURRENCY

ENV_PREFIX = "WORKER"


def _uuid(text: str) -> str:
    canonical = parse_uuid(text.encode())
    if canonical is None:
        raise ValueError("not a UUID")
    return canonical


def _level(text: object) -> object:
    """NVCF writes levels in capitals, and ``warn``."""
    if not isinstance(text, str):
        return text
    lowered = text.lower()
    return "warning" if lowered == "warn" else lowered


Uuid = Annotated[str, AfterValidator(_uuid)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Status = Annotated[int, Field(ge=100, le=599)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
UrlPath = Annotated[str, Field(pattern=r"^/[!-~]*$")]


class FunctionSettings(Section):
    """What is served; told to the inference server with every request."""

    id: Uuid
    """The function."""
    version_id: Uuid
    """The version whose queue is pulled from."""
    name: Text = ""
    """For NVCF-FUNCTION-NAME."""


class InstanceSettings(Section):
    """Where the agent runs; told to the inference server with every request."""

    id: Text = ""
    """Names the connection to NATS and its inbox, and the instance at control.url."""
    type: Text = ""
    """For NVCF-INSTANCETYPE."""
    backend: Text = ""
    """For NVCF-BACKEND."""
    zone: Text = ""
    """For NVCF-REGION."""
    environment: Text = ""
    """For NVCF-ENV."""
    nspect_id: Text = ""
    """For NVCF-NSPECTID."""


class InferenceSettings(Section):
    """The inference server beside the agent."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$")] = "127.0.0.1"
    """Name or address, IPv6 without brackets."""
    port: Port = 8000
    """Plain HTTP/1.1."""
    service_name: str = ""
    """With service_namespace: a Kubernetes service in place of host."""
    service_namespace: str = ""
    """Of service_name."""
    max_concurrency: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)] = 1
    """Requests that the inference server works on at the same time, until control.url says else."""
    idle_s: Seconds = 4.0
    """For unused connections; shorter than the inference server keeps them."""
    connect_timeout_s: Seconds = 5.0
    """For one connection."""
    asset_dir: Text = "/var/inf/inputAssets"
    """For NVCF-ASSET-DIR, the request's id follows."""
    large_output_dir: Text = "/var/inf/response"
    """For NVCF-LARGE-OUTPUT-DIR, the request's id follows."""


class HealthSettings(Section):
    """How the inference server shows that it is able to serve."""

    path: UrlPath = "/v2/health/ready"
    """Asked by GET."""
    port: Port | None = None
    """Unset: inference.port."""
    expected_status: Status = 200
    """Any other is unhealthy."""
    timeout_s: Seconds = 31.0
    """For one probe."""
    ready_timeout_s: Seconds = 1800.0
    """For the first healthy answer after the start; then the agent gives up."""
    start_interval_s: Annotated[Seconds, Field(gt=0)] = 0.5
    """Between probes until the first healthy answer."""
    interval_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """Between probes after that."""


class ControlSettings(Section):
    """The platform's API: where the agent says that it is there, and gets its login to NATS."""

    url: Annotated[str, Field(pattern=r"^$|^https?://[!-~]+$")] = ""
    """http:// or https://; empty: the agent is told of by nobody."""
    token: SecretStr | None = None
    """The worker token of this instance, to begin with; renewed ones follow."""
    timeout_s: Annotated[Seconds, Field(gt=0)] = 5.0
    """For one call."""


class QueueSettings(Section):
    """The function's queue."""

    region: Name = "local"
    """Part of stream and subject names."""
    progress_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """Between renewals of the leases, which last 30 s."""


class AttachSettings(Section):
    """Connections to the gateway processes that hold the clients."""

    idle_s: Seconds = 30.0
    """For unused connections; shorter than the gateways keep them (75 s)."""
    max_idle: Count = 256
    """Unused connections to one gateway process."""
    connect_timeout_s: Seconds = 5.0
    """For one connection."""


class AdminSettings(Section):
    """Metrics and health for the platform."""

    listen: Address = Address.parse("0.0.0.0:8080")
    """Port 0: any. Probes of a platform come from outside."""
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """In place of the port in listen."""


class DrainSettings(Section):
    """SIGTERM."""

    timeout_s: Seconds = 110.0
    """For what is in flight; then it is broken off. Less than the platform's own grace."""


class LogSettings(Section):
    """Standard output."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_level)] = "info"
    """The least that is written."""


class WorkerSettings(Section):
    """All of them."""

    function: FunctionSettings
    instance: InstanceSettings = InstanceSettings()
    inference: InferenceSettings = InferenceSettings()
    health: HealthSettings = HealthSettings()
    control: ControlSettings = ControlSettings()
    nats: WorkerNatsSettings = WorkerNatsSettings()
    queue: QueueSettings = QueueSettings()
    attach: AttachSettings = AttachSettings()
    admin: AdminSettings = AdminSettings()
    drain: DrainSettings = DrainSettings()
    log: LogSettings = LogSettings()


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
    "INFERENCE_PORT": "inference.port",
    "HELM_CHART_INFERENCE_SERVICE_NAME": "inference.service_name",
    "HELM_CHART_NAMESPACE": "inference.service_namespace",
    "INFERENCE_SERVICE_NAME": "inference.service_name",
    "INFERENCE_NAMESPACE": "inference.service_namespace",
    "MAX_REQUEST_CONCURRENCY": "inference.max_concurrency",
    "BASE_ASSET_DIR": "inference.asset_dir",
    "BASE_RESPONSE_DIR": "inference.large_output_dir",
    "INFERENCE_HEALTH_ENDPOINT": "health.path",
    "INFERENCE_HEALTH_PORT": "health.port",
    "INFERENCE_HEALTH_TIMEOUT": "health.timeout_s",
    "INFERENCE_HEALTH_EXPECTED_RESPONSE_CODE": "health.expected_status",
    "INFERENCE_READY_TIMEOUT": "health.ready_timeout_s",
    "NVCF_FQDN_NATS": "nats.urls",
    "NKEY_SEED": "nats.nkey_seed",
    "NVCF_WORKER_TOKEN": "nats.worker_token",
    "HEALTH_PORT": "admin.port",
    "LOG_LEVEL": "log.level",
}
"""NVCF's names in the environment; of two for one setting the first that is set counts."""
