"""Command lines from a launch spec: no shell, none of our settings, our variables override."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import VersionDetails
from gateway.provision.backend import LaunchSpec
from gateway.provision.launch import MAX_STRING_BYTES, LaunchError, image_of
from gateway.provision.local.command import (
    MAX_ALL_BYTES,
    Allocation,
    ServerAddress,
    inference_command,
    running_server,
    worker_command,
)
from runtime.settings import load
from tests.support.deployments import FUNCTION_ID, VERSION_ID, gpu_spec, instance
from worker_agent.settings import ENV_PREFIX, WorkerSettings

ALLOCATION = Allocation("127.0.0.1", 4711, Path("/run/i1/secrets.json"))
ECHO = "process://{python} -m uvicorn 'my_model:app' --port {port}"


def launch_spec(**spec: Any) -> LaunchSpec:
    spec = {"containerImage": "registry/echo:1", **spec}
    details = VersionDetails(FUNCTION_ID, VERSION_ID, "acme", "", spec=spec)
    environment = {"WORKER_NATS__URLS": "nats://here:4222"}
    return LaunchSpec(instance(), gpu_spec(concurrency=8), details, {"key": "value"}, environment)


def test_the_template_is_filled_and_the_arguments_follow() -> None:
    command = inference_command(
        launch_spec(containerArgs="--log-level 'very quiet; rm -rf /'"),
        ECHO,
        ALLOCATION,
        "/bin/python",
        {},
    )
    assert command.argv == (
        "/bin/python", "-m", "uvicorn", "my_model:app", "--port", "4711",
        "--log-level", "very quiet; rm -rf /",
    )  # fmt: skip


def test_a_server_that_is_started_gets_its_telemetries_and_one_that_runs_cannot() -> None:
    variables = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://otel.example/v1/logs"}
    launch = replace(launch_spec(telemetries={"logsTelemetryId": FUNCTION_ID}), variables=variables)
    command = inference_command(launch, ECHO, ALLOCATION, "python", {})
    assert variables.items() <= command.environment.items()
    with pytest.raises(LaunchError, match="telemetries cannot be given to a server that runs"):
        running_server(launch, "http://gpu.local:9000")


def test_the_function_declares_its_environment_and_the_platform_wins() -> None:
    declared = [{"key": "MODE", "value": "fast"}, {"key": "FUNCTION_ID", "value": "forged"}]
    command = inference_command(
        launch_spec(containerEnvironment=declared),
        ECHO,
        ALLOCATION,
        "python",
        {"PATH": "/bin", "MODE": "no"},
    )
    environment = command.environment
    assert environment["MODE"] == "fast"
    assert environment["PATH"] == "/bin"
    assert environment["FUNCTION_ID"] == FUNCTION_ID
    assert environment["NVCF_SECRETS_FILE"] == "/run/i1/secrets.json"
    assert "value" not in environment.values()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "cluster 'local' has no command for the image 'registry/echo:1'"),
        ("docker://x", "neither a command, which begins with process://"),
        ("process://", "the command is empty"),
        ("process://echo 'open", "cannot be split"),
    ],
)
def test_an_unusable_template_is_refused_with_a_reason(template: str | None, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        inference_command(launch_spec(), template, ALLOCATION, "python", {})


@pytest.mark.parametrize(
    ("template", "address"),
    [
        ("http://127.0.0.1:9000", ServerAddress("127.0.0.1", 9000)),
        ("http://gpu-1.local:80/", ServerAddress("gpu-1.local", 80)),
        ("http://[::1]:9000", ServerAddress("::1", 9000)),
        ("http://h", None),
        ("http://h:0", None),
        ("http://h:9000/v1", None),
        ("https://h:9000", None),
        (ECHO, None),
        (None, None),
    ],
)
def test_a_server_that_runs_already_is_given_by_its_address(
    template: str | None, address: ServerAddress | None
) -> None:
    assert running_server(launch_spec(), template) == address


@pytest.mark.parametrize(
    "spec",
    [
        {"containerArgs": "--x"},
        {"containerEnvironment": [{"key": "A", "value": "b"}]},
        {"helmChart": "c"},
    ],
)
def test_a_server_that_runs_already_gets_no_arguments(spec: dict[str, Any]) -> None:
    with pytest.raises(LaunchError, match=f"{next(iter(spec))} cannot be given to a server"):
        running_server(launch_spec(**spec), "http://h:1")


LONGEST = "x" * MAX_STRING_BYTES


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"containerArgs": LONGEST + "x"}, "containerArgs can have at most 131,071 characters"),
        ({"containerArgs": "é" * 70_000}, "the argument 'ééé.* at most 131,071 bytes, not 140,000"),
        ({"containerArgs": "a 'b"}, "containerArgs cannot be split into words: no closing"),
        ({"containerArgs": "{image}" * 18_000}, "too long once its {image} is filled in"),
        ({"containerArgs": "a\0b"}, "'a.x00b' contains a NUL"),
        ({"containerArgs": "\ud800"}, "not valid Unicode"),
        ({"containerEnvironment": [{"key": "K", "value": LONGEST}]}, "variable 'K' can have"),
        (
            {"containerEnvironment": [{"key": "A=B", "value": ""}]},
            "'A=B' is not the name of an env",
        ),
        (
            {"containerEnvironment": [{"key": f"K{n}", "value": "x" * 999} for n in range(2100)]},
            "environment can have at most 2,093,056 bytes together, not 2,1",
        ),
    ],
)
def test_a_command_that_linux_cannot_execute_is_refused_with_a_reason(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(LaunchError, match=message) as refused:
        inference_command(launch_spec(**spec), ECHO, ALLOCATION, "python", {})
    assert len(str(refused.value)) < 500


def test_the_largest_command_that_linux_can_execute_is_accepted() -> None:
    """The command is executed."""
    most = {
        "containerArgs": LONGEST,
        "containerEnvironment": [
            {"key": f"K{n:02}", "value": LONGEST[:-4]} for n in range(MAX_ALL_BYTES // 132_000 - 1)
        ],
    }
    command = inference_command(
        launch_spec(**most), "process:///bin/true", ALLOCATION, "python", {}
    )
    assert subprocess.run(command.argv, env=command.environment, check=False).returncode == 0


def test_an_overlong_image_is_refused_before_its_template_is_searched() -> None:
    with pytest.raises(LaunchError, match="containerImage is longer than 4,096 characters"):
        image_of(launch_spec(containerImage="x" * 5000))
    with pytest.raises(LaunchError) as refused:
        inference_command(launch_spec(containerImage="x" * 4096), None, ALLOCATION, "python", {})
    assert len(str(refused.value)) < 300


def test_a_worker_command_that_linux_cannot_execute_is_refused_too() -> None:
    health = {"uri": LONGEST, "port": 8000, "timeout": "PT10S", "expectedStatusCode": 200}
    with pytest.raises(LaunchError, match="variable 'WORKER_HEALTH__PATH' can have at most"):
        worker_command(launch_spec(health=health), ("agent",), ALLOCATION, 30.0, {})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"helmChart": "https://charts/x.tgz"}, "cannot run a Helm chart"),
        ({"models": [{"name": "m"}]}, "cannot run models without one"),
    ],
)
def test_a_helm_chart_or_models_without_an_image_are_named_in_the_reason(
    spec: dict[str, Any], message: str
) -> None:
    asked = launch_spec(**spec, containerImage="")
    with pytest.raises(LaunchError, match=f"cluster 'local' runs commands .*{message}"):
        inference_command(asked, None, ALLOCATION, "python", {})


def test_a_template_for_every_image_runs_models_alone_but_no_helm_chart() -> None:
    helm = launch_spec(helmChart="https://charts/x.tgz", containerImage="")
    with pytest.raises(LaunchError, match="cannot run a Helm chart"):
        inference_command(helm, ECHO, ALLOCATION, "python", {})
    models = launch_spec(models=[{"name": "m"}], containerImage="", containerArgs="tritonserver")
    assert inference_command(models, "process://run", ALLOCATION, "", {}).argv == (
        "run",
        "tritonserver",
    )


def test_the_worker_gets_the_address_and_health_check_of_its_inference_server() -> None:
    health = {"uri": "ready", "port": 8000, "timeout": "PT10S", "expectedStatusCode": 204}
    command = worker_command(launch_spec(health=health), ("agent",), ALLOCATION, 30.0, {})
    environment = dict(command.environment)
    assert environment["WORKER_INFERENCE__PORT"] == "4711"
    assert environment["WORKER_INFERENCE__MAX_CONCURRENCY"] == "8"
    assert environment["WORKER_HEALTH__PATH"] == "/ready"
    assert environment["WORKER_HEALTH__TIMEOUT_S"] == "PT10S"
    assert environment["WORKER_HEALTH__EXPECTED_STATUS"] == "204"
    assert "WORKER_HEALTH__PORT" not in environment
    assert environment["WORKER_NATS__URLS"] == "nats://here:4222"


@pytest.mark.parametrize(
    ("url", "health", "protocols"),
    [
        ("/echo", "HTTP", ("http", "http")),
        ("/grpc", "gRPC", ("grpc", "grpc")),
        ("grpc", "HTTP", ("grpc", "http")),
        ("/echo", "gRPC", ("http", "grpc")),
        ("/grpc", None, ("grpc", "http")),
    ],
)
def test_the_worker_speaks_the_protocols_of_its_function(
    url: str, health: str | None, protocols: tuple[str, str]
) -> None:
    spec = {"inferenceUrl": url} | ({"health": {"protocol": health}} if health else {})
    command = worker_command(launch_spec(**spec), ("agent",), ALLOCATION, 30.0, {})
    settings = load(WorkerSettings, None, ENV_PREFIX, environ=command.environment)
    assert (settings.inference.protocol, settings.health.protocol) == protocols


def test_the_worker_accepts_every_setting_that_it_is_given() -> None:
    """The worker refuses to start with a setting that it does not know."""
    health = {"uri": "/ready", "port": 9000, "timeout": "PT10S", "expectedStatusCode": 200}
    command = worker_command(
        launch_spec(health=health, name="echo"), ("agent",), ALLOCATION, 30.0, {}
    )
    settings = load(WorkerSettings, None, ENV_PREFIX, environ=command.environment)
    assert settings.health.port == 9000
    assert settings.instance.id == "i1"
