"""NVIDIA's ``ngcsdk``: what it does with NVCF.

It runs unchanged; ``NGC_CLI_API_URL`` leads it here. What it asks of services that are not NVCF's
(clusters, tasks, instances' shells, logs, GPU quotas) is not tried.
"""

import os
from collections.abc import Callable
from typing import Any

from ngcbase.errors import NgcException, ResourceNotFoundException
from ngcsdk import Client
from nvcf.api.deployment_spec import TargetedDeploymentSpecification
from trying import try_all

ORGANIZATION, FUNCTION = os.environ["ORGANIZATION"], os.environ["DEMO_FUNCTION"]
VERSION = os.environ["DEMO_VERSION"]
FRESH, FRESH_VERSION = os.environ["FRESH_FUNCTION"], os.environ["FRESH_VERSION"]
client = Client()
cloud = client.cloud_function


def specification() -> TargetedDeploymentSpecification:
    return TargetedDeploymentSpecification(
        gpu="CPU",
        instance_type="local",
        min_instances=1,
        max_instances=1,
        max_request_concurrency=8,
    )


def configure() -> None:
    client.configure(api_key=os.environ["API_KEY"], org_name=ORGANIZATION)
    with_other = Client()
    try:
        with_other.configure(api_key=os.environ["API_KEY"], org_name="another-org")
    except NgcException as error:
        assert ORGANIZATION in str(error)  # noqa: PT017
    else:
        raise AssertionError("an organization of others was accepted")


def lists() -> None:
    functions = cloud.functions
    for found in (
        functions.list(),
        functions.list(function_id=FUNCTION),
        functions.list(name_pattern="de*"),
        functions.list(access_filter=["private", "authorized"]),
    ):
        assert VERSION in {one["versionId"] for one in found["functions"]}
    assert functions.info(FUNCTION, VERSION).function.status == "ACTIVE"


def functions_are_made(image: str) -> Callable[[], None]:
    def attempt() -> None:
        functions = cloud.functions
        wish: dict[str, Any] = {
            "name": "of-ngcsdk",
            "inference_url": "/echo",
            "container_image": image,
            "health_uri": "/health",
            "inference_port": 8000,
            "tags": ["a"],
            "description": "made by ngcsdk",
            "secrets": ["name:value"],
            "container_environment_variables": ["key:value"],
            "rate_limit_pattern": "100-S",
        }
        made = functions.create(**wish).function
        assert made.containerImage.endswith(image), made
        second = functions.create(**wish, function_id=made.id).function
        assert second.id == made.id
        functions.update(made.id, made.versionId, rate_limit_pattern="3-S")
        functions.update(made.id, made.versionId, clear_rate_limit=True)
        functions.update_rate_limit(made.id, made.versionId, "3-S")
        functions.remove_rate_limit(made.id, made.versionId)
        functions.update_secrets(made.id, made.versionId, secrets=["other:value"])
        allowed = functions.authorizations
        assert allowed.info(made.id, made.versionId).function.authorizedParties == []
        parties = allowed.add(made.id, made.versionId, nca_id="*").function
        assert [party["ncaId"] for party in parties.authorizedParties] == ["*"]
        allowed.clear(made.id, made.versionId)
        for version in (made, second):
            functions.delete(version.id, version.versionId)
        try:
            functions.info(made.id, made.versionId)
        except ResourceNotFoundException:
            return
        raise AssertionError("a deleted version is still there")

    return attempt


def deployments() -> None:
    deployed = cloud.functions.deployments
    made = deployed.create(
        FRESH, FRESH_VERSION, targeted_deployment_specifications=[specification()]
    )
    assert made.deployment.functionVersionId == FRESH_VERSION
    deployed.update(FRESH, FRESH_VERSION, targeted_deployment_specifications=[specification()])
    assert deployed.info(FRESH, FRESH_VERSION).deployment.functionId == FRESH
    ids = {one["functionVersionId"] for one in deployed.list()["deployments"]}
    assert {VERSION, FRESH_VERSION} <= ids
    assert deployed.restart(FRESH, FRESH_VERSION).deployment.functionId == FRESH
    gone = deployed.delete(FRESH, FRESH_VERSION, graceful=True)
    assert gone["function"]["versionId"] == FRESH_VERSION
    assert deployed.list_cluster_groups().clusterGroups


def telemetries() -> None:
    endpoints = cloud.telemetry_endpoints
    collector: dict[str, Any] = {
        "name": "of-ngcsdk",
        "endpoint": "http://127.0.0.1:4318",
        "protocol": "HTTP",
        "provider": "OTEL_COLLECTOR",
        "types": ["TRACES", "LOGS"],
        "key": "token",
    }
    made = endpoints.create(**collector).telemetry
    assert [one["telemetryId"] for one in endpoints.list()["telemetries"]] == [made.telemetryId]
    stack = {"provider": "GRAFANA_CLOUD", "name": "of-ngcsdk-2", "instance": "1"}
    other = endpoints.create(**{**collector, **stack}).telemetry
    refused(
        "DATADOG is not supported",
        lambda: endpoints.create(**{**collector, "provider": "DATADOG", "name": "of-ngcsdk-3"}),
    )
    function = cloud.functions.create(
        name="of-ngcsdk-traced",
        inference_url="/echo",
        health_uri="/health",
        container_image="docker.io/acme/demo:1",
        traces_telemetry_id=made.telemetryId,
        logs_telemetry_id=other.telemetryId,
    ).function
    assert function.telemetries.tracesTelemetryId == made.telemetryId
    refused("sends to this telemetry", lambda: endpoints.delete(made.telemetryId))
    cloud.functions.delete(function.id, function.versionId)
    for one in (made, other):
        endpoints.delete(one.telemetryId)
    assert endpoints.list()["telemetries"] == []


def registry_credentials() -> None:
    """`gateway dev` runs processes, which are not pulled from a registry."""
    credentials = cloud.registry_credentials
    assert credentials.list()["registryCredentials"] == []
    refused(
        "No cluster of the account pulls images",
        lambda: credentials.create("mine", "docker.io", ["CONTAINER"], "key", username="me"),
    )
    refused("doesn't exist", lambda: credentials.delete(FUNCTION))


def refused(words: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except NgcException as error:
        assert words in str(error), error  # noqa: PT017
    else:
        raise AssertionError(f"it was accepted: {words}")


def teams() -> None:
    client.config.team_name = "any-team"
    try:
        lists()
    finally:
        client.config.team_name = None


def callers() -> None:
    assert client.users.who() == 0, "a service key has no user"
    client.configure(api_key=os.environ["INVOCATION_TOKEN"], org_name=ORGANIZATION)
    (found,) = client.organization.organization.list()
    assert found.name == ORGANIZATION
    assert client.organization.organization.info().name == ORGANIZATION
    assert client.users.who().userRoles[0].org.name == ORGANIZATION


try_all(
    {
        "ngcsdk: configure": configure,
        "ngcsdk: functions": lists,
        "ngcsdk: functions of a public image": functions_are_made("docker.io/acme/demo:1"),
        "ngcsdk: functions of an image of NGC's registry": functions_are_made("acme/demo:1"),
        "ngcsdk: deployments": deployments,
        "ngcsdk: telemetry endpoints": telemetries,
        "ngcsdk: registry credentials": registry_credentials,
        "ngcsdk: a team": teams,
        "ngcsdk: user and organization of a token": callers,
    }
)
