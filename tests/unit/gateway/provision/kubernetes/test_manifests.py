"""The objects of an instance as Kubernetes gets them."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from gateway.provision.kubernetes.manifests import (
    AGENT,
    INSTANCE_LABEL,
    InstanceShape,
    Manifest,
    PodOptions,
    deployment,
    disruption_budget,
    pull_secret,
    record_in,
    secret,
    selector_of,
)
from gateway.provision.launch import LaunchError
from runtime.settings import load
from tests.support.deployments import VERSION_ID
from tests.support.launches import INSTANCE_ID, launch_of
from worker_agent.settings import ENV_PREFIX, WorkerSettings

SHAPE = InstanceShape(2, {"cpu": "8", "memory": "64Gi"}, {"gpu": "l40s"})
OPTIONS = PodOptions(
    "gpus",
    "registry/worker-agent:1",
    {("L40S", "type-1"): SHAPE},
    image_pull_secrets=("registry",),
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists"},),
    drain_s=45.5,
)
OWNER = {"metadata": {"name": f"fn-{INSTANCE_ID}", "uid": "u1"}}


def pod_of(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found


def environment_of(container: Manifest) -> dict[str, str]:
    return {one["name"]: one.get("value", "(secret)") for one in container["env"]}


def test_the_pod_asks_for_the_gpus_of_its_type_and_is_placed_as_configured() -> None:
    pod = pod_of(deployment(launch_of(), OPTIONS, 1))
    (function,) = pod["containers"]
    assert function["resources"] == {
        "requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": "2"},
    }
    assert pod["nodeSelector"] == {"gpu": "l40s"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["automountServiceAccountToken"] is False


def test_the_agent_is_a_sidecar_whose_settings_load_and_whose_token_is_in_the_secret() -> None:
    launch = launch_of(health={"protocol": "HTTP", "uri": "ready", "port": 9000})
    (agent,) = pod_of(deployment(launch, OPTIONS, 1))["initContainers"]
    assert (agent["name"], agent["restartPolicy"]) == (AGENT, "Always")
    plain = environment_of(agent)
    assert plain["WORKER_CONTROL__TOKEN"] == "(secret)"
    made = secret(launch, OPTIONS, OWNER)
    values = {name: base64.b64decode(text).decode() for name, text in made["data"].items()}
    assert values.pop("secrets.json") == '{"key": "hush-hush"}'
    settings = load(WorkerSettings, None, ENV_PREFIX, environ=plain | values)
    assert settings.inference.port == 9000
    assert settings.health.path == "/ready"
    assert settings.health.port is None
    assert "stringData" not in made
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u1"


def test_a_credential_of_a_variable_is_in_the_secret_and_not_in_the_pod() -> None:
    name = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
    launch = replace(launch_of(), variables={name: "authorization=Bearer%20s3cret"})
    made = deployment(launch, OPTIONS, 1)
    assert "s3cret" not in str(made)
    (function,) = pod_of(made)["containers"]
    assert environment_of(function)[name] == "(secret)"
    found = next(one for one in function["env"] if one["name"] == name)
    reference = found["valueFrom"]["secretKeyRef"]
    stored = secret(launch, OPTIONS, OWNER)
    assert reference["name"] == stored["metadata"]["name"]
    value = base64.b64decode(stored["data"][reference["key"]])
    assert value == b"authorization=Bearer%20s3cret"


def test_an_image_is_pulled_with_the_login_of_its_account_beside_those_of_the_cluster() -> None:
    launch = replace(launch_of(), registry_logins='{"auths": {}}')
    made = pull_secret(launch, OPTIONS, OWNER)
    assert made is not None
    assert made["type"] == "kubernetes.io/dockerconfigjson"
    assert base64.b64decode(made["data"][".dockerconfigjson"]) == b'{"auths": {}}'
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u1"
    names = pod_of(deployment(launch, OPTIONS, 1))["imagePullSecrets"]
    assert names == [{"name": "registry"}, {"name": made["metadata"]["name"]}]
    assert pull_secret(launch_of(), OPTIONS, OWNER) is None


def test_a_pod_ends_when_its_worker_has_drained_and_has_time_for_it() -> None:
    pod = pod_of(deployment(launch_of(), OPTIONS, 1))
    (function,), (agent,) = pod["containers"], pod["initContainers"]
    plain = environment_of(agent)
    assert pod["terminationGracePeriodSeconds"] > float(plain["WORKER_DRAIN__TIMEOUT_S"]) == 45.5
    hook = function["lifecycle"]["preStop"]["httpGet"]
    assert hook["port"] == agent["ports"][0]["containerPort"]
    assert hook["httpHeaders"][0]["value"] == f"Bearer {plain['WORKER_DRAIN__TOKEN']}"


def test_the_agent_gets_out_of_the_way_of_the_functions_ports() -> None:
    health = {"protocol": "HTTP", "uri": "/", "port": 8078}
    pod = pod_of(deployment(launch_of(inferencePort=8079, health=health), OPTIONS, 1))
    assert pod["initContainers"][0]["ports"][0]["containerPort"] == 8077


def test_what_kubernetes_would_expand_stays_as_the_function_wrote_it() -> None:
    declared = [{"key": "PRICE", "value": "$(HOME) $5"}]
    launch = launch_of(containerArgs="--say '$(PORT)'", containerEnvironment=declared)
    (function,) = pod_of(deployment(launch, OPTIONS, 1))["containers"]
    assert function["args"] == ["--say", "$$(PORT)"]
    assert environment_of(function)["PRICE"] == "$$(HOME) $$5"


def test_each_start_makes_a_new_pod_and_the_same_launch_the_same() -> None:
    first, again, other = (
        deployment(launch_of(token=token), OPTIONS, 1) for token in ("a", "a", "b")
    )
    assert first == again
    assert first["spec"]["template"] != other["spec"]["template"]
    assert first["spec"]["selector"] == other["spec"]["selector"]


def test_the_record_of_an_instance_is_in_its_deployment_and_of_no_other_instance() -> None:
    launch = launch_of()
    made = deployment(replace(launch, instance=replace(launch.instance, error="x")), OPTIONS, 1)
    assert record_in(made) == launch.instance
    labels = made["metadata"]["labels"]
    assert record_in({"metadata": made["metadata"] | {"labels": {}}}) is None
    assert record_in({"metadata": {"labels": labels}}) is None
    of_other = deployment(launch_of("44444444-4444-4444-8444-444444444444"), OPTIONS, 1)
    assert record_in({"metadata": of_other["metadata"] | {"labels": labels}}) is None


def test_one_budget_stands_for_a_version_and_ends_with_its_last_instance() -> None:
    other = {"metadata": {"name": "fn-2", "uid": "u2"}}
    budget = disruption_budget(launch_of(), OPTIONS, [OWNER, other])
    assert budget["metadata"]["name"] == f"fn-{VERSION_ID}"
    assert [one["uid"] for one in budget["metadata"]["ownerReferences"]] == ["u1", "u2"]
    assert INSTANCE_LABEL not in budget["metadata"]["labels"]
    assert budget["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"containerImage": ""}, "needs a containerImage"),
        ({"helmChart": "https://charts/x"}, "cannot run a Helm chart"),
        ({"containerArgs": "a 'b"}, "containerArgs cannot be split"),
        ({"containerEnvironment": [{"key": "A=B", "value": ""}]}, "'A=B' is not the name of"),
    ],
)
def test_what_cannot_run_is_refused_with_its_reason(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        deployment(launch_of(**spec), OPTIONS, 1)


def test_an_instance_type_that_is_not_configured_any_more_is_named() -> None:
    with pytest.raises(LaunchError, match="no instance type L40S/type-1"):
        deployment(launch_of(), replace(OPTIONS, shapes={}), 1)


def test_secrets_that_are_too_large_are_refused() -> None:
    launch = replace(launch_of(), secrets={"key": "x" * (1 << 20)})
    with pytest.raises(LaunchError, match="its secrets have more than"):
        secret(launch, OPTIONS, OWNER)


@pytest.mark.parametrize("name", ["gpus", "_edge-", "x" * 64])
def test_every_name_of_a_cluster_has_a_label(name: str) -> None:
    value = selector_of(name).partition("=")[2]
    assert len(value) <= 63
    assert value[0].isalnum()
    assert value[-1].isalnum()
