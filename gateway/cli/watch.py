"""Follows a deployment by polling the API, and prints each change.

An API that is unavailable for a while does not end the command: the deployment proceeds anyway.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from gateway.cli.api_client import ApiClient, Json
from gateway.cli.errors import ApiError, CommandError, Unreachable

POLL_S = 0.5
UNREACHABLE_S = 60.0
"""Maximum time without a response; then the command fails."""

Say = Callable[[str], None]


class Progress:
    """What has been printed about one deployment."""

    def __init__(self) -> None:
        self._status = ""
        self._instances: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def lines(self, function: Mapping[str, Any], deployment: Mapping[str, Any]) -> list[str]:
        """Return one line for each change since the last call, the status last."""
        found = [*self._instance_lines(function), *self._error_lines(deployment)]
        if function["status"] != self._status:
            self._status = function["status"]
            found.append(self._status)
        return found

    def _instance_lines(self, function: Mapping[str, Any]) -> Iterator[str]:
        active = function.get("activeInstances") or ()
        instances = {instance["instanceId"]: instance for instance in active}
        for instance_id, instance in instances.items():
            status = instance.get("instanceStatus") or instance.get("status") or "STARTING"
            if self._instances.get(instance_id) != status:
                self._instances[instance_id] = status
                yield f"instance {instance_id} {status} ({instance['gpu']})"
        for instance_id in [known for known in self._instances if known not in instances]:
            del self._instances[instance_id]
            yield f"instance {instance_id} gone"

    def _error_lines(self, deployment: Mapping[str, Any]) -> Iterator[str]:
        for health in deployment.get("healthInfo") or ():
            instance_id = health.get("instanceId", "")
            if self._reasons.get(instance_id) != health["error"]:
                self._reasons[instance_id] = health["error"]
                who = f"instance {instance_id} failed: " if instance_id else ""
                yield f"{who}{_first_line(health['error'])}"


async def wait_until_up(api: ApiClient, function_id: str, version_id: str, say: Say) -> Json:
    """Return the deployment once it is ACTIVE, with the numbers that it says.

    Raises `CommandError` if it fails or is removed.
    """
    async for function, deployment in _poll(api, function_id, version_id, say):
        status = function["status"]
        if status == "ACTIVE" and has_numbers(function, deployment):
            return deployment
        if status == "ERROR":
            raise CommandError(f"The deployment failed: {_reason(deployment)}")
        if status == "INACTIVE" or not deployment:
            raise CommandError("The version is no longer deployed.")
    raise AssertionError("polling ended")


def has_numbers(function: Json, deployment: Json) -> bool:
    """Whether as many instances run as the deployment says, each with as many requests at a time.

    The status alone does not tell: it stays ACTIVE for a moment after a change, and while instances
    above a new maximum stop. Instances are counted by their GPU; they do not name more of their
    specification. A credential that sees no instances sees the status only.
    """
    if function.get("activeInstances") is None:
        return True
    own = [
        instance
        for instance in function["activeInstances"]
        if instance["icmsRequestId"] == deployment["deploymentId"]
    ]
    specs = deployment["deploymentSpecifications"]
    for gpu in {spec["gpu"] for spec in specs}:
        wanted = [spec for spec in specs if spec["gpu"] == gpu]
        found = [instance for instance in own if instance["gpu"] == gpu]
        healthy = [instance for instance in found if instance["healthy"]]
        if (
            len(healthy) < sum(spec["minInstances"] for spec in wanted)
            or len(found) > sum(spec["maxInstances"] for spec in wanted)
            or not {instance["slots"] for instance in healthy}
            <= {spec["maxRequestConcurrency"] for spec in wanted}
        ):
            return False
    return True


async def wait_until_gone(api: ApiClient, function_id: str, version_id: str, say: Say) -> None:
    """Return once the version has neither a deployment nor instances."""
    async for function, deployment in _poll(api, function_id, version_id, say):
        if not deployment and not function.get("activeInstances"):
            return


async def _poll(
    api: ApiClient, function_id: str, version_id: str, say: Say
) -> AsyncIterator[tuple[Json, Json]]:
    """Yield version and deployment every `POLL_S` seconds, and print what has changed.

    Raises `Unreachable` if the API is unavailable for `UNREACHABLE_S`.
    """
    progress = Progress()
    outage = _Outage(say)
    while True:
        try:
            function, deployment = await _fetch(api, function_id, version_id)
        except Unreachable as error:
            await outage.wait(error)
            continue
        outage.end()
        for line in progress.lines(function, deployment):
            say(line)
        yield function, deployment
        await asyncio.sleep(POLL_S)


class _Outage:
    """Measures how long the API has been unavailable."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._since: float | None = None

    def end(self) -> None:
        if self._since is not None:
            self._say("The API responds again.")
        self._since = None

    async def wait(self, error: Unreachable) -> None:
        """Wait before the next attempt. Raises ``error`` after `UNREACHABLE_S`."""
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
            self._say(f"{error}; retrying")
        elif now - self._since > UNREACHABLE_S:
            raise error
        await asyncio.sleep(POLL_S)


async def _fetch(api: ApiClient, function_id: str, version_id: str) -> tuple[Json, Json]:
    """Return the version and its deployment, which is empty if there is none."""
    version = f"functions/{function_id}/versions/{version_id}"
    function = (await api.get(version))["function"]
    try:
        deployment = (await api.get(f"deployments/{version}"))["deployment"]
    except ApiError as error:
        if error.status != 404:
            raise
        deployment = {}
    return function, deployment


def _reason(deployment: Json) -> str:
    errors = [health["error"] for health in deployment.get("healthInfo") or ()]
    return _first_line(errors[0]) if errors else "no reason given"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
