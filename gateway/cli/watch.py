"""Follows a deployment by asking again and again, and tells what has changed.

`Progress` compares pictures and knows the end; `follow` takes them. An API that is away for a while
ends nothing: what was asked for goes on without us.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from gateway.cli.api_client import ApiClient, Json
from gateway.cli.errors import CommandError, Refused, Unreachable

ASK_EVERY_S = 0.5
UNREACHABLE_S = 60.0
"""Without an answer for so long, we give up."""

Say = Callable[[str], None]


class Progress:
    """What has been told of one deployment."""

    def __init__(self) -> None:
        self._status = ""
        self._instances: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def lines(self, function: Mapping[str, Any], deployment: Mapping[str, Any]) -> list[str]:
        """Return one line for each change since the last picture, the status last."""
        found = []
        instances = {one["instanceId"]: one for one in function.get("activeInstances") or ()}
        for instance_id, one in instances.items():
            status = one.get("instanceStatus") or one.get("status") or "STARTING"
            if self._instances.get(instance_id) != status:
                self._instances[instance_id] = status
                found.append(f"instance {instance_id} {status} ({one['gpu']})")
        for instance_id in list(self._instances):
            if instance_id not in instances:
                del self._instances[instance_id]
                found.append(f"instance {instance_id} gone")
        for health in deployment.get("healthInfo") or ():
            who = health.get("instanceId", "")
            if self._reasons.get(who) != health["error"]:
                self._reasons[who] = health["error"]
                found.append(f"instance {who} failed: {_first_line(health['error'])}")
        if function["status"] != self._status:
            self._status = function["status"]
            found.append(self._status)
        return found


async def until_up(api: ApiClient, function_id: str, version_id: str, say: Say) -> Json:
    """Return the deployment once it is ACTIVE. Raises `CommandError` when it has failed."""
    async for function, deployment in _pictures(api, function_id, version_id, say):
        status = function["status"]
        if status == "ACTIVE":
            return deployment
        if status == "ERROR":
            raise CommandError(f"The deployment failed: {_reason(deployment)}")
        if status == "INACTIVE" or not deployment:
            raise CommandError("The version is not deployed any more.")
    raise AssertionError("pictures ended")


async def until_gone(api: ApiClient, function_id: str, version_id: str, say: Say) -> None:
    """Return once the version has no deployment any more."""
    async for function, deployment in _pictures(api, function_id, version_id, say):
        if not deployment and not function.get("activeInstances"):
            return


async def _pictures(
    api: ApiClient, function_id: str, version_id: str, say: Say
) -> AsyncIterator[tuple[Json, Json]]:
    """Yield version and deployment, again and again, and say what has changed.

    Raises `Unreachable` when the API is away for too long.
    """
    progress = Progress()
    patience = _Patience(say)
    while True:
        try:
            function, deployment = await _picture(api, function_id, version_id)
        except Unreachable as error:
            await patience.wait(error)
            continue
        patience.answered()
        for line in progress.lines(function, deployment):
            say(line)
        yield function, deployment
        await asyncio.sleep(ASK_EVERY_S)


class _Patience:
    """How long the API may be away."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._away_since: float | None = None

    def answered(self) -> None:
        if self._away_since is not None:
            self._say("The API answers again.")
        self._away_since = None

    async def wait(self, error: Unreachable) -> None:
        """Wait a little; raises ``error`` when it has been too long."""
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
            self._say(f"{error}; still trying")
        elif now - self._away_since > UNREACHABLE_S:
            raise error
        await asyncio.sleep(ASK_EVERY_S)


async def _picture(api: ApiClient, function_id: str, version_id: str) -> tuple[Json, Json]:
    """Return the version, and its deployment, which is empty when there is none."""
    version = f"functions/{function_id}/versions/{version_id}"
    function = (await api.get(version))["function"]
    try:
        deployment = (await api.get(f"deployments/{version}"))["deployment"]
    except Refused as error:
        if error.status != 404:
            raise
        deployment = {}
    return function, deployment


def _reason(deployment: Json) -> str:
    errors = [health["error"] for health in deployment.get("healthInfo") or ()]
    return _first_line(errors[0]) if errors else "no reason is given"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
