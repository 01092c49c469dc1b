"""Records of what is wanted (details, deployment) and of what runs (instances).

`VersionDetails` is the part of a version that routing does not need. A `Deployment` says which
instances of a version are wanted, from deploy to undeploy; it keeps its id when it is updated. An
`Instance` is one inference server with its worker, as last reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from sys import intern
from typing import Self

from gateway.domain.documents import SCHEMA, Document, RecordError
from gateway.domain.keys import DeploymentKey, DetailsKey, InstanceKey
from wire.ids import FunctionId, VersionId

MAX_ERROR_BYTES = 4096
"""Limit of the error text of an instance or deployment: a reason and the last log lines."""


@dataclass(frozen=True, slots=True)
class VersionDetails:
    """How a version was registered.

    ``spec`` is the validated body of the call in the form of the API (camelCase, defaults filled),
    without the values of secrets; ``secret_names`` are their names. ``created_at`` and
    ``updated_at`` are ISO 8601, UTC, with microseconds and ``Z``.
    """

    function_id: FunctionId
    version_id: VersionId
    account: str
    created_at: str
    spec: Mapping[str, object] = field(default_factory=dict)
    secret_names: tuple[str, ...] = ()
    updated_at: str = ""

    @property
    def key(self) -> DetailsKey:
        return DetailsKey(self.function_id, self.version_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "details",
            "function_id": self.function_id,
            "version_id": self.version_id,
            "account": self.account,
            "created_at": self.created_at,
            "spec": self.spec,
            "secret_names": self.secret_names,
            "updated_at": self.updated_at,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            function_id=FunctionId(document.uuid("function_id")),
            version_id=VersionId(document.uuid("version_id")),
            account=intern(document.text("account")),
            created_at=document.text("created_at"),
            spec=document.mapping("spec"),
            secret_names=document.ordered_texts("secret_names"),
            updated_at=document.text("updated_at"),
        )


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """The instances of one kind that a deployment wants, and where they run.

    ``backend`` is the cluster group. ``concurrency`` is requests at a time per instance. ``extra``
    holds every other member that the API accepted, in the form of the API. ``is_external``: nothing
    starts the instances, workers register as them.
    """

    spec_id: str
    gpu: str
    backend: str
    instance_type: str
    min_instances: int
    max_instances: int
    concurrency: int = 1
    extra: Mapping[str, object] = field(default_factory=dict)
    is_external: bool = False

    def document(self) -> dict[str, object]:
        return {
            "spec_id": self.spec_id,
            "gpu": self.gpu,
            "backend": self.backend,
            "instance_type": self.instance_type,
            "min_instances": self.min_instances,
            "max_instances": self.max_instances,
            "concurrency": self.concurrency,
            "extra": self.extra,
            "is_external": self.is_external,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            spec_id=document.text("spec_id"),
            gpu=intern(document.text("gpu")),
            backend=intern(document.text("backend")),
            instance_type=intern(document.text("instance_type")),
            min_instances=document.number("min_instances"),
            max_instances=document.number("max_instances"),
            concurrency=document.number("concurrency"),
            extra=document.mapping("extra"),
            is_external=document.flag_or_false("is_external"),
        )


@dataclass(frozen=True, slots=True)
class HealthInfo:
    """Why instances of a GPU specification do not run.

    ``instance_id`` is empty if the error concerns all instances of the specification.
    """

    spec_id: str
    gpu: str
    backend: str
    instance_type: str
    instance_id: str
    error: str

    def document(self) -> dict[str, object]:
        return {
            "spec_id": self.spec_id,
            "gpu": self.gpu,
            "backend": self.backend,
            "instance_type": self.instance_type,
            "instance_id": self.instance_id,
            "error": self.error,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            spec_id=document.text("spec_id"),
            gpu=document.text("gpu"),
            backend=document.text("backend"),
            instance_type=document.text("instance_type"),
            instance_id=document.text("instance_id"),
            error=document.text("error"),
        )


@dataclass(frozen=True, slots=True)
class Deployment:
    """The instances of a version that its owner wants.

    ``created_at`` and ``updated_at`` are ISO 8601 as in `VersionDetails`. In Unix seconds:
    ``deadline_at``, when a deployment that has never been complete becomes an error, and
    ``draining_until``, when draining ends (`None`: no undeploy is in progress).
    """

    deployment_id: str
    function_id: FunctionId
    version_id: VersionId
    account: str
    specs: tuple[GpuSpec, ...]
    created_at: str
    updated_at: str
    deadline_at: int
    draining_until: int | None = None
    health: tuple[HealthInfo, ...] = ()

    def spec(self, spec_id: str) -> GpuSpec | None:
        """Return the GPU specification with this id."""
        return next((spec for spec in self.specs if spec.spec_id == spec_id), None)

    @property
    def is_external(self) -> bool:
        """Whether workers register as all of its instances, so that none is started."""
        return all(spec.is_external for spec in self.specs)

    @property
    def key(self) -> DeploymentKey:
        return DeploymentKey(self.function_id, self.version_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "deployment",
            "deployment_id": self.deployment_id,
            "function_id": self.function_id,
            "version_id": self.version_id,
            "account": self.account,
            "specs": [spec.document() for spec in self.specs],
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "deadline_at": self.deadline_at,
            "draining_until": self.draining_until,
            "health": [health.document() for health in self.health],
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            deployment_id=document.text("deployment_id"),
            function_id=FunctionId(document.uuid("function_id")),
            version_id=VersionId(document.uuid("version_id")),
            account=intern(document.text("account")),
            specs=tuple(GpuSpec.read(Document(spec)) for spec in document.objects("specs")),
            created_at=document.text("created_at"),
            updated_at=document.text("updated_at"),
            deadline_at=document.number("deadline_at"),
            draining_until=document.number_or_none("draining_until"),
            health=tuple(
                HealthInfo.read(Document(health)) for health in document.objects("health")
            ),
        )


class Phase(Enum):
    """Stage in the life of an instance."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy of a version, as last reported.

    ``is_connected``: the worker holds a lease, until ``lease_until`` (Unix seconds);
    ``is_healthy``: the inference server passed its last health check. ``slots`` is the number of
    requests that it serves at a time, ``busy`` how many it serves now. ``error`` has at most
    `MAX_ERROR_BYTES`. ``registered_with`` is the id of the registration token with which an
    external worker came, empty for an instance that was started here. ``facts`` are what the worker
    tells of itself, in the form of the API (`gateway.api.schemas.workers.WorkerFacts`).
    """

    instance_id: str
    deployment_id: str
    spec_id: str
    function_id: FunctionId
    version_id: VersionId
    account: str
    gpu: str
    instance_type: str
    backend: str
    phase: Phase
    error: str = ""
    created_at: str = ""
    updated_at: str = ""
    is_connected: bool = False
    is_healthy: bool = False
    slots: int = 0
    busy: int = 0
    lease_until: int = 0
    registered_with: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def has_left(self) -> bool:
        """Whether its worker has said that it stops; it may be finishing requests."""
        return self.lease_until > 0 and not self.is_connected

    @property
    def is_external(self) -> bool:
        """Whether its worker registered as it, so that only its lease tells of its end."""
        return bool(self.registered_with)

    @property
    def key(self) -> InstanceKey:
        return InstanceKey(self.version_id, self.instance_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "instance",
            "instance_id": self.instance_id,
            "deployment_id": self.deployment_id,
            "spec_id": self.spec_id,
            "function_id": self.function_id,
            "version_id": self.version_id,
            "account": self.account,
            "gpu": self.gpu,
            "instance_type": self.instance_type,
            "backend": self.backend,
            "phase": self.phase.value,
            "error": self.error,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "is_connected": self.is_connected,
            "is_healthy": self.is_healthy,
            "slots": self.slots,
            "busy": self.busy,
            "lease_until": self.lease_until,
            "registered_with": self.registered_with,
            "facts": self.facts,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        phase = document.text("phase")
        if phase not in Phase.__members__:
            raise RecordError(f"phase {phase!r} is not known")
        return cls(
            instance_id=document.text("instance_id"),
            deployment_id=document.text("deployment_id"),
            spec_id=document.text("spec_id"),
            function_id=FunctionId(document.uuid("function_id")),
            version_id=VersionId(document.uuid("version_id")),
            account=intern(document.text("account")),
            gpu=intern(document.text("gpu")),
            instance_type=intern(document.text("instance_type")),
            backend=intern(document.text("backend")),
            phase=Phase[phase],
            error=document.text("error"),
            created_at=document.text("created_at"),
            updated_at=document.text("updated_at"),
            is_connected=document.flag("is_connected"),
            is_healthy=document.flag("is_healthy"),
            slots=document.number("slots"),
            busy=document.number("busy"),
            lease_until=document.number("lease_until"),
            registered_with=document.text_or_empty("registered_with"),
            facts=document.mapping_or_empty("facts"),
        )
