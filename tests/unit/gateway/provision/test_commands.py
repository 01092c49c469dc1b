"""An order as command lines: no shell, no environment of ours, our names win."""

from pathlib import Path
from typing import Any

import pytest

from gateway.functions.model import VersionDetails
from gateway.provision.backend import Order
from gateway.provision.commands import CommandError, Seat, inference_command, worker_command
from runtime.settings import load
from tests.support.deployments import FUNCTION_ID, VERSION_ID, gpu_spec, instance
from worker_agent.settings import ENV_PREFIX, WorkerSettings

SEAT = Seat("127.0.0.1", 4711, Path("/run/i1/secrets.json"))
ECHO = "process://{python} -m uvicorn 'examples.echo:app' --port {port}"


def order(**spec: Any) -> Order:
    spec = {"containerImage": "registry/echo:1", **spec}
    details = VersionDetails(FUNCTION_ID, VERSION_ID, "acme", "", spec=spec)
    environment = {"WORKER_NATS__URLS": "nats://here:4222"}
    return Order(instance(), gpu_spec(concurrency=8), details, {"key": "value"}, environment)


def test_the_template_is_filled_and_the_arguments_follow() -> None:
    command = inference_command(
        order(containerArgs="--log-level 'very quiet; rm -rf /'"), ECHO, SEAT, "/bin/python", {}
    )
    assert command.argv == (
        "/bin/python", "-m", "uvicorn", "examples.echo:app", "--port", "4711",
        "--log-level", "very quiet; rm -rf /",
    )  # fmt: skip


def test_the_function_declares_its_environment_and_the_platform_wins() -> None:
    declared = [{"key": "MODE", "value": "fast"}, {"key": "FUNCTION_ID", "value": "forged"}]
    command = inference_command(
        order(containerEnvironment=declared), ECHO, SEAT, "python", {"PATH": "/bin", "MODE": "no"}
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
        ("docker://x", "must begin with process://"),
        ("process://", "the command is empty"),
        ("process://echo 'open", "cannot be split"),
    ],
)
def test_what_is_no_command_says_why(template: str | None, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        inference_command(order(), template, SEAT, "python", {})


def test_the_worker_is_told_how_to_find_its_inference_server() -> None:
    health = {"uri": "ready", "port": 8000, "timeout": "PT10S", "expectedStatusCode": 204}
    command = worker_command(order(health=health), ("agent",), SEAT, 30.0, {})
    environment = dict(command.environment)
    assert environment["WORKER_INFERENCE__PORT"] == "4711"
    assert environment["WORKER_INFERENCE__MAX_CONCURRENCY"] == "8"
    assert environment["WORKER_HEALTH__PATH"] == "/ready"
    assert environment["WORKER_HEALTH__TIMEOUT_S"] == "PT10S"
    assert environment["WORKER_HEALTH__EXPECTED_STATUS"] == "204"
    assert "WORKER_HEALTH__PORT" not in environment
    assert environment["WORKER_NATS__URLS"] == "nats://here:4222"


def test_the_worker_takes_every_setting_that_it_is_given() -> None:
    """The names are the worker's own: one that it does not know stops it."""
    health = {"uri": "/ready", "port": 9000, "timeout": "PT10S", "expectedStatusCode": 200}
    command = worker_command(order(health=health, name="echo"), ("agent",), SEAT, 30.0, {})
    settings = load(WorkerSettings, None, ENV_PREFIX, environ=command.environment)
    assert settings.health.port == 9000
    assert settings.instance.id == "i1"
