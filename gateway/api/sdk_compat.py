"""Responses for the SDKs of 2024/25, in states that they know (`docs/wire.md` §16.2).

Their models fail on DEGRADING and DEGRADED. These states are replaced by what a call meets:
DEGRADING by ACTIVE, DEGRADED by DEPLOYING (it waits for an instance), with the true state in
``statusDetail``. Of instances, RUNNING is replaced by ACTIVE, and the status STARTING is left out.
Other callers get the true states.
"""

from collections.abc import Mapping

_STATES = {"DEGRADING": "ACTIVE", "DEGRADED": "DEPLOYING"}
_STATUS_MEMBERS = ("status", "functionStatus")


def is_old_sdk(headers: Mapping[str, str]) -> bool:
    """Whether a call comes from an SDK made for API 2.87.3."""
    return "x-sideko-sdk-language" in headers or headers.get("user-agent", "").startswith(
        "Konfig/2.87.3"
    )


def project(value: object) -> object:
    """Return a response, as JSON values, with the states that the old SDKs know."""
    if isinstance(value, list):
        return [project(item) for item in value]
    if isinstance(value, dict):
        return _project(value)
    return value


def _project(members: dict[str, object]) -> dict[str, object]:
    if "instanceStatus" in members or "icmsRequestId" in members:
        return _instance(members)
    projected = {
        name: project(value) if name in _NESTED else value for name, value in members.items()
    }
    for name in _STATUS_MEMBERS:
        state = members.get(name)
        if isinstance(state, str) and state in _STATES:
            projected[name] = _STATES[state]
            projected["statusDetail"] = state
    return projected


_NESTED = frozenset({"function", "functions", "deployment", "queues", "activeInstances"})
"""Members that contain states. Other objects, such as a Helm configuration, are not changed."""


def _instance(members: dict[str, object]) -> dict[str, object]:
    projected = dict(members)
    status = projected.pop("instanceStatus", None)
    if status == "RUNNING":
        projected["instanceStatus"] = "ACTIVE"
    elif status is not None and status != "STARTING":
        projected["instanceStatus"] = status
    return projected
