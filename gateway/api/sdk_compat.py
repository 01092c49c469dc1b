"""Answers in the words of the SDKs of 2024/25, for them alone (`spec/control-plane.md` §7.4).

Their models know no DEGRADING and no DEGRADED and fail on them. They are told what matters to them,
whether the function can be invoked: DEGRADING is ACTIVE, DEGRADED is ERROR; of instances, RUNNING
is ACTIVE, and STARTING has no status. ``statusDetail`` beside it has the true state. Everybody else
gets the truth.
"""

from collections.abc import Mapping

_STATES = {"DEGRADING": "ACTIVE", "DEGRADED": "ERROR"}
_STATUS_MEMBERS = ("status", "functionStatus")


def is_old_sdk(headers: Mapping[str, str]) -> bool:
    """Whether a call comes from one of the SDKs made for API 2.87.3."""
    return "x-sideko-sdk-language" in headers or headers.get("user-agent", "").startswith(
        "Konfig/2.87.3"
    )


def project(value: object) -> object:
    """Return an answer (as JSON) in the words of the old SDKs."""
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
"""Members with states in them. Others, a Helm configuration for one, are nobody's business."""


def _instance(members: dict[str, object]) -> dict[str, object]:
    projected = dict(members)
    status = projected.pop("instanceStatus", None)
    if status == "RUNNING":
        projected["instanceStatus"] = "ACTIVE"
    elif status is not None and status != "STARTING":
        projected["instanceStatus"] = status
    return projected
