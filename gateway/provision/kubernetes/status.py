"""What Kubernetes says of an instance, from its Deployment and its pods. Pure.

Objects are in the form of the API. Reasons are Kubernetes' own, in the order in which they help
most: what a container waits for or why it ended, with the last lines of its log (the kubelet puts
them into the termination message), why no node takes the pod, why there is no pod at all.
"""

import calendar
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.domain.deployment import MAX_ERROR_BYTES
from gateway.provision.backend import RunState
from gateway.provision.kubernetes.manifests import FAILURE_ANNOTATION, INFERENCE

GONE_AFTER_S = 30.0
"""So long after its grace a pod counts as gone that is still there: its node does not answer."""
_HARMLESS = frozenset({"ContainerCreating", "PodInitializing"})
_FINAL = frozenset({"InvalidImageName"})
"""What no waiting and no other pod can change."""
_CRASHED = "CrashLoopBackOff"


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of an instance, and why it does not run; empty if nothing is known to be wrong.

    ``is_final``: every further attempt must fail as well.
    """

    state: RunState
    reason: str = ""
    is_final: bool = False


def observe(
    deployment: Mapping[str, Any] | None, pods: Iterable[Mapping[str, Any]], now: float
) -> Observed | None:
    """Return the state of an instance; `None` if nothing of it is left.

    ``now`` is in Unix seconds: a pod whose node does not answer is taken for gone after a while.
    """
    pods = list(pods)
    left = [pod for pod in pods if not _is_gone(pod, now)]
    if deployment is None or deployment["metadata"].get("deletionTimestamp"):
        return Observed(RunState.STOPPING) if left or deployment is not None else None
    if not deployment["spec"].get("replicas", 1):
        annotations = deployment["metadata"].get("annotations") or {}
        failure = str(annotations.get(FAILURE_ANNOTATION, ""))
        if left:
            return Observed(RunState.UP, failure or "it is being ended")
        return Observed(RunState.DOWN, failure)
    living = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if not living:
        return Observed(RunState.UP, _why_no_pod(deployment))
    newest = max(living, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    reason, word = _why_not_ready(newest)
    if word in _FINAL:
        return Observed(RunState.DOWN, reason, is_final=True)
    return Observed(RunState.UP, reason)


def log_tail(pods: Iterable[Mapping[str, Any]]) -> str:
    """Return what the function's container wrote last before it ended; empty if it has not."""
    for pod in pods:
        for status in _container_statuses(pod):
            ended = _ended(status)
            if status.get("name") == INFERENCE and ended is not None and ended.get("message"):
                return str(ended["message"])
    return ""


def unix_seconds(timestamp: object) -> float:
    """Return a time of the API (RFC 3339, UTC) in Unix seconds; 0 if it is none."""
    try:
        moment = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return 0.0
    return float(calendar.timegm(moment.utctimetuple()))


def _is_gone(pod: Mapping[str, Any], now: float) -> bool:
    """Whether nothing of a pod runs. A deletion's time lies in the future: now and the grace."""
    if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return True
    deleted_at = unix_seconds(pod["metadata"].get("deletionTimestamp", ""))
    return bool(deleted_at) and now > deleted_at + GONE_AFTER_S


def _why_not_ready(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Return why a pod is not ready, and Kubernetes' word for it; empty if nothing is wrong."""
    status = pod.get("status") or {}
    conditions = {one.get("type"): one for one in status.get("conditions") or ()}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return "", ""
    for container in _container_statuses(pod):
        reason, word = _why_container_waits(container)
        if reason:
            return _cut(f"{container.get('name')}: {reason}"), word
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return _cut(_joined(scheduled)), str(scheduled.get("reason", ""))
    if status.get("reason"):
        return _cut(_joined(status)), str(status["reason"])
    return "", ""


def _container_statuses(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the statuses of the function's container first, then of the agent's."""
    status = pod.get("status") or {}
    yield from status.get("containerStatuses") or ()
    yield from status.get("initContainerStatuses") or ()


def _why_container_waits(status: Mapping[str, Any]) -> tuple[str, str]:
    waiting = (status.get("state") or {}).get("waiting") or {}
    word = str(waiting.get("reason", ""))
    ended = _ended(status)
    if ended is not None and word in {"", _CRASHED}:
        return _describe_end(ended, word, int(status.get("restartCount", 0))), word
    if not word or word in _HARMLESS:
        return "", ""
    return _joined(waiting), word


def _ended(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how a container ended last, if it has."""
    for state in (status.get("state"), status.get("lastState")):
        if state and state.get("terminated"):
            found: Mapping[str, Any] = state["terminated"]
            return found
    return None


def _describe_end(ended: Mapping[str, Any], word: str, restarts: int) -> str:
    """Return such as ``CrashLoopBackOff: ended with code 7, restarted 3 times`` and the log."""
    why = ended.get("reason", "")
    parts = [f"ended with code {ended.get('exitCode')}"]
    if ended.get("signal"):
        parts = [f"ended by signal {ended['signal']}"]
    if why and why not in {"Error", "Completed"}:
        parts[0] = f"{why}, {parts[0]}"
    if restarts:
        parts.append(f"restarted {restarts} {'time' if restarts == 1 else 'times'}")
    first = f"{word}: " if word else ""
    return f"{first}{', '.join(parts)}\n{ended.get('message', '')}".strip()


def _why_no_pod(deployment: Mapping[str, Any]) -> str:
    """Return why a Deployment has no pod, such as a quota or a missing service account."""
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    for condition in conditions:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return _cut(_joined(condition))
    return ""


def _joined(said: Mapping[str, Any]) -> str:
    parts = (str(said.get("reason", "")), str(said.get("message", "")))
    return ": ".join(part for part in parts if part)


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")
