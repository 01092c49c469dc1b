"""Builds the objects of an instance in Kubernetes from a launch spec. Pure.

    Deployment           0 or 1 pods: the function's container, and the worker agent beside it as a
                         native sidecar (an init container that is always restarted)
    Secret               the agent's settings with its token, the function's secrets.json and its
                         variables with credentials; owned by the Deployment
    Secret               the login to the registry of the function's image, if its account has one;
                         owned by the Deployment
    PodDisruptionBudget  one per version: a node that is drained takes one instance at a time;
                         owned by all of the version's Deployments

A Deployment holds one instance, not all of a version: the planner decides which instance ends, one
that is idle, where a ReplicaSet would choose itself; and each has an id, a token and a health.

When a pod ends, the kubelet runs all ``preStop`` hooks first, sends SIGTERM to the function's
container when its hook has ended, and to the sidecar last. So the hook of the function's container
asks the agent to drain, and ends when that has: the inference server lives as long as a request.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.domain.agent_settings import DEFAULT_PORT
from gateway.domain.documents import RecordError
from gateway.domain.model import Instance, decode, encode
from gateway.provision.backend import LaunchSpec
from gateway.provision.launch import (
    LaunchError,
    container_args,
    function_environment,
    image_of,
    number_of,
    platform_environment,
    start_of,
    text_of,
    worker_settings,
)

Manifest = dict[str, Any]
"""An object of Kubernetes in the form of its API."""

LABELS = "invocation-gateway"
"""Prefix of our labels and annotations."""
CLUSTER_LABEL = f"{LABELS}/cluster"
"""Label of everything that belongs to a cluster of the settings: what the backend looks at."""
FUNCTION_LABEL = f"{LABELS}/function"
VERSION_LABEL = f"{LABELS}/version"
INSTANCE_LABEL = f"{LABELS}/instance"
FAILURE_ANNOTATION = f"{LABELS}/failure"
"""Why a Deployment was set to 0 pods."""
RECORD_ANNOTATION = f"{LABELS}/record"
"""The record with which an instance was started: the store keeps it in memory only."""
INFERENCE, AGENT = "inference", "worker-agent"
"""Names of the containers."""
SECRETS_FOLDER = "/var/secrets"
EXCHANGE_FOLDER = "/var/inf"
"""Folder that both containers have: input assets and large outputs."""
END_S = 10
"""Time for the inference server to end after the worker has drained, and for the worker then."""
MAX_SECRET_BYTES = 1 << 20
"""What Kubernetes takes in one Secret."""
_ADMIN_PORTS = (8079, 8078, 8077)
_PROBE_S = 5
_SECRETS_KEY = "secrets.json"


@dataclass(frozen=True, slots=True)
class InstanceShape:
    """What an instance type is in Kubernetes.

    ``gpus`` is how many of the cluster's GPU resource a pod asks for. ``resources`` are further
    requests, as quantities by name; all but ``cpu`` are limits too.
    """

    gpus: int = 1
    resources: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What all pods of a cluster have in common.

    ``cluster`` is its name in the settings. ``tolerations`` are in the form of the API of
    Kubernetes. ``shapes`` are the instance types by GPU and name. ``drain_s`` is how many seconds a
    worker may take to finish its requests.
    """

    cluster: str
    agent_image: str
    shapes: Mapping[tuple[str, str], InstanceShape] = field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    tolerations: tuple[Mapping[str, str], ...] = ()
    drain_s: float = 30.0


def name_of(instance_id: str) -> str:
    """Return the name of an instance's Deployment and Secret."""
    return f"fn-{instance_id}"


def budget_name(version_id: str) -> str:
    """Return the name of a version's PodDisruptionBudget."""
    return f"fn-{version_id}"


def selector_of(cluster: str) -> str:
    """Return the label selector of everything that belongs to ``cluster``."""
    return f"{CLUSTER_LABEL}={_label_value(cluster)}"


def deployment(launch: LaunchSpec, options: PodOptions, replicas: int) -> Manifest:
    """Return the Deployment of an instance. Raises `LaunchError`.

    ``replicas`` is always said: an apply that leaves it out sets it to 1.
    """
    instance = launch.instance
    labels = _labels(launch, options)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name_of(instance.instance_id),
            "labels": labels,
            "annotations": {
                RECORD_ANNOTATION: encode(replace(instance, error="", facts={})).decode()
            },
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            # Never two workers of one instance at a time.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {INSTANCE_LABEL: instance.instance_id}},
            "template": {
                "metadata": {
                    "labels": labels,
                    # The token is new at each start, so that a start always makes a new pod.
                    "annotations": {f"{LABELS}/start": _digest(launch)},
                },
                "spec": _pod(launch, options),
            },
        },
    }


def record_in(found: Manifest) -> Instance | None:
    """Return the record in a Deployment as the cluster has it; `None` if there is none of it."""
    meta = found["metadata"]
    labels = meta.get("labels") or {}
    try:
        record = decode((meta.get("annotations") or {}).get(RECORD_ANNOTATION, "").encode())
    except RecordError:
        return None
    if not isinstance(record, Instance):
        return None
    ids = record.instance_id, record.version_id
    return record if ids == (labels.get(INSTANCE_LABEL), labels.get(VERSION_LABEL)) else None


def secret(launch: LaunchSpec, options: PodOptions, owner: Manifest) -> Manifest:
    """Return the Secret of an instance, which ends with its Deployment ``owner``.

    Its values are in ``data``: a key that is left out of ``stringData`` later would stay. Raises
    `LaunchError`.
    """
    values = {
        **launch.worker_environment,
        **launch.variables,
        _SECRETS_KEY: json.dumps(dict(launch.secrets)),
    }
    if sum(len(value.encode()) for value in values.values()) > MAX_SECRET_BYTES:
        raise LaunchError(f"its secrets have more than {MAX_SECRET_BYTES:,} bytes together")
    return _secret(launch, options, owner, name_of(launch.instance.instance_id), values)


def pull_secret(launch: LaunchSpec, options: PodOptions, owner: Manifest) -> Manifest | None:
    """Return the Secret with which the function's image is pulled, `None` if it needs none."""
    if not launch.registry_logins:
        return None
    name = _pull_secret_name(launch)
    values = {".dockerconfigjson": launch.registry_logins}
    made = _secret(launch, options, owner, name, values)
    return {**made, "type": "kubernetes.io/dockerconfigjson"}


def _secret(
    launch: LaunchSpec,
    options: PodOptions,
    owner: Manifest,
    name: str,
    values: Mapping[str, str],
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": _labels(launch, options),
            "ownerReferences": [owner_reference(owner)],
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def _pull_secret_name(launch: LaunchSpec) -> str:
    return f"{name_of(launch.instance.instance_id)}-pull"


def disruption_budget(
    launch: LaunchSpec, options: PodOptions, owners: Iterable[Manifest]
) -> Manifest:
    """Return the PodDisruptionBudget of a version, which ends with the last of its ``owners``."""
    labels = _labels(launch, options)
    del labels[INSTANCE_LABEL]
    version_id = launch.instance.version_id
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": budget_name(version_id),
            "labels": labels,
            "ownerReferences": [owner_reference(owner) for owner in owners],
        },
        "spec": {
            "maxUnavailable": 1,
            # A pod that cannot serve must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": {VERSION_LABEL: version_id}},
        },
    }


def owner_reference(owner: Manifest) -> Manifest:
    """Return a reference to a Deployment as the cluster has it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }


def _labels(launch: LaunchSpec, options: PodOptions) -> dict[str, str]:
    instance = launch.instance
    return {
        "app.kubernetes.io/managed-by": LABELS,
        CLUSTER_LABEL: _label_value(options.cluster),
        FUNCTION_LABEL: instance.function_id,
        VERSION_LABEL: instance.version_id,
        INSTANCE_LABEL: instance.instance_id,
    }


def _label_value(cluster: str) -> str:
    """Return a cluster's name as a label: at most 63 characters, no - or _ at the ends."""
    if len(cluster) <= 63 and cluster.strip("-_") == cluster:
        return cluster
    return f"c{hashlib.sha256(cluster.encode()).hexdigest()[:32]}"


def _digest(launch: LaunchSpec) -> str:
    values = json.dumps([dict(launch.worker_environment), dict(launch.secrets)], sort_keys=True)
    return hashlib.sha256(values.encode()).hexdigest()[:32]


def _pod(launch: LaunchSpec, options: PodOptions) -> Manifest:
    shape = options.shapes.get((launch.spec.gpu, launch.spec.instance_type))
    if shape is None:
        raise LaunchError(
            f"cluster {options.cluster!r} has no instance type "
            f"{launch.spec.gpu}/{launch.spec.instance_type}"
        )
    spec = launch.details.spec
    port = number_of(spec, "inferencePort") or DEFAULT_PORT
    settings = worker_settings(launch, port, options.drain_s)
    taken = {str(port), settings.get("WORKER_HEALTH__PORT")}
    admin_port = next(one for one in _ADMIN_PORTS if str(one) not in taken)
    pod: Manifest = {
        "terminationGracePeriodSeconds": math.ceil(options.drain_s) + END_S,
        "automountServiceAccountToken": False,
        # Else the names of all services become variables of the function.
        "enableServiceLinks": False,
        "initContainers": [_agent(launch, options, settings, admin_port)],
        "containers": [_inference(launch, options, shape, port, admin_port)],
        "volumes": [
            {"name": "exchange", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            {
                "name": "secrets",
                "secret": {
                    "secretName": name_of(launch.instance.instance_id),
                    "items": [{"key": _SECRETS_KEY, "path": _SECRETS_KEY}],
                },
            },
        ],
    }
    if shape.node_selector:
        pod["nodeSelector"] = dict(shape.node_selector)
    if options.tolerations:
        pod["tolerations"] = [dict(one) for one in options.tolerations]
    pull_secrets = [*options.image_pull_secrets]
    if launch.registry_logins:
        pull_secrets.append(_pull_secret_name(launch))
    if pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    if options.service_account:
        pod["serviceAccountName"] = options.service_account
    return pod


def _agent(
    launch: LaunchSpec, options: PodOptions, settings: Mapping[str, str], admin_port: int
) -> Manifest:
    plain = {
        **settings,
        "WORKER_INFERENCE__HOST": "127.0.0.1",
        "WORKER_INFERENCE__ASSET_DIR": f"{EXCHANGE_FOLDER}/inputAssets",
        "WORKER_INFERENCE__LARGE_OUTPUT_DIR": f"{EXCHANGE_FOLDER}/response",
        "WORKER_ADMIN__LISTEN": f"0.0.0.0:{admin_port}",
        "WORKER_DRAIN__TOKEN": _drain_token(launch),
    }
    secret_names = sorted(launch.worker_environment)
    return {
        "name": AGENT,
        "image": options.agent_image,
        "restartPolicy": "Always",
        "env": [
            *({"name": key, "value": plain[key]} for key in sorted(plain.keys() - secret_names)),
            *_variables_of_secret(launch, secret_names),
        ],
        "ports": [{"name": "admin", "containerPort": admin_port}],
        "livenessProbe": _probe("/health/live", admin_port, failures=6),
        # Ready: the inference server is healthy, and the worker has its broker.
        "readinessProbe": _probe("/health/ready", admin_port, failures=1),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "exchange", "mountPath": EXCHANGE_FOLDER}],
    }


def _inference(
    launch: LaunchSpec, options: PodOptions, shape: InstanceShape, port: int, admin_port: int
) -> Manifest:
    spec = launch.details.spec
    if text_of(spec, "helmChart"):
        raise LaunchError(f"cluster {options.cluster!r} cannot run a Helm chart (helmChart)")
    image = image_of(launch)
    if not image:
        raise LaunchError(f"cluster {options.cluster!r} needs a containerImage")
    variables = {
        **function_environment(spec),
        **platform_environment(launch, port, f"{SECRETS_FOLDER}/{_SECRETS_KEY}"),
    }
    for name in variables:
        if "=" in name or not (name.isascii() and name.isprintable()):
            raise LaunchError(f"{start_of(name)} is not the name of an environment variable")
    requests = dict(shape.resources)
    if shape.gpus:
        requests[options.gpu_resource] = str(shape.gpus)
    container: Manifest = {
        "name": INFERENCE,
        "image": image,
        # Kubernetes replaces $(NAME) in arguments and variables; $$ stands for one $.
        "env": [
            *({"name": key, "value": _literal(value)} for key, value in variables.items()),
            *_variables_of_secret(launch, sorted(launch.variables)),
        ],
        "ports": [{"name": "inference", "containerPort": port}],
        "lifecycle": {
            "preStop": {
                "httpGet": {
                    "path": "/drain",
                    "port": admin_port,
                    "httpHeaders": [
                        {"name": "Authorization", "value": f"Bearer {_drain_token(launch)}"}
                    ],
                }
            }
        },
        # The status then has the last lines of the log, and nobody needs the right to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {
            "requests": requests,
            "limits": {name: value for name, value in requests.items() if name != "cpu"},
        },
        "volumeMounts": [
            {"name": "exchange", "mountPath": EXCHANGE_FOLDER},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - in the container
            {"name": "secrets", "mountPath": SECRETS_FOLDER, "readOnly": True},
        ],
    }
    if args := container_args(launch):
        container["args"] = [_literal(word) for word in args]
    return container


def _variables_of_secret(launch: LaunchSpec, names: Iterable[str]) -> list[Manifest]:
    secret_name = name_of(launch.instance.instance_id)
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": name}}}
        for name in names
    ]


def _literal(text: str) -> str:
    return text.replace("$", "$$")


def _drain_token(launch: LaunchSpec) -> str:
    """Return what allows to drain the agent, and nothing else: whoever reads pods can see it."""
    token = launch.worker_environment.get("WORKER_CONTROL__TOKEN", launch.instance.instance_id)
    return hashlib.sha256(f"drain {token}".encode()).hexdigest()[:32]


def _probe(path: str, port: int, *, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": _PROBE_S,
        "timeoutSeconds": _PROBE_S,
        "failureThreshold": failures,
    }
