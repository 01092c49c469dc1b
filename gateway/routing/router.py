"""From a target to a version that can be invoked by this caller, or the reason why not.

The order of checks decides what a stranger learns (`spec/control-plane.md` §1.0): credential (401),
scope (403), does it exist for this account (404), is the key good for it (403), its state (400 or
404, §3.4). Functions of other accounts that are not shared do not exist. A call that names no
version may get any invocable one that the caller sees, evenly over the running capacity: own,
public and shared alike, so that making one version public does not hide the others.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gateway.domain.model import INVOCABLE, FunctionVersion, State
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.readmodel import FunctionEntry, ReadModel
from gateway.errors import BadRequest, Forbidden, FunctionNotFound, NotInvocable
from gateway.routing.target import Target
from wire.worker_api import DEFAULT_POLL_S, MAX_POLL_S

Authenticate = Callable[[bytes | None, float], Principal]
"""From an Authorization value and Unix time; raises `gateway.errors.Unauthenticated`."""

_NEAREST_FIRST = (State.DEGRADED, State.DEPLOYING, State.ERROR, State.INACTIVE)


class Admission(NamedTuple):
    """An invocation that may begin. ``poll_s`` is how long the caller waits for the head."""

    version: FunctionVersion
    account: str
    subject: str
    poll_s: int


class Router:
    """Admits invocations, by the read model alone."""

    __slots__ = ("_authenticate", "_model", "_random")

    def __init__(
        self, model: ReadModel, authenticate: Authenticate, random: Callable[[], float]
    ) -> None:
        """``random`` returns a float from 0.0 up to but not 1.0."""
        self._model = model
        self._authenticate = authenticate
        self._random = random

    def admit(self, target: Target, now: float) -> Admission:
        """Return what to invoke and for whom; ``now`` is Unix time in seconds.

        Raises `Unauthenticated`, `Forbidden`, `FunctionNotFound`, `NotInvocable` or `BadRequest`.
        """
        principal = self._authenticate(target.authorization, now)
        poll = target.poll_seconds
        poll_s = DEFAULT_POLL_S if poll is None else poll_seconds(poll)
        version = self.pick(target.function_id, target.version_id, principal)
        return Admission(version, principal.account, principal.subject, poll_s)

    def pick(
        self, function_id: str, version_id: str | None, principal: Principal
    ) -> FunctionVersion:
        """Return the version named, or one of those that can serve."""
        if INVOKE not in principal.scopes:
            raise Forbidden(f"The credential lacks the scope {INVOKE}")
        entry = self._model.function(function_id)
        if entry is None:
            raise _not_found(function_id, version_id)
        if version_id is not None:
            return _named(entry, function_id, version_id, principal)
        if entry.account == principal.account and principal.reach.own:
            candidates: tuple[FunctionVersion, ...] = entry.invocable
        else:
            candidates = _permitted(entry, function_id, principal)
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            return chosen(candidates, self._random())
        raise _not_invocable(
            function_id,
            None,
            {v.state for v in entry.versions.values() if principal.sees(entry, v)},
        )


def chosen(candidates: Sequence[FunctionVersion], random: float) -> FunctionVersion:
    """Return one of ``candidates``, each as likely as its share of the running capacity.

    ``random`` is from 0.0 up to but not 1.0. Where nothing runs all are equally likely.
    """
    total = sum([version.capacity for version in candidates])
    if not total:
        return candidates[int(random * len(candidates))]
    left = random * total
    for version in candidates:
        left -= version.capacity
        if left < 0:
            return version
    return candidates[-1]


def poll_seconds(value: bytes) -> int:
    """Read ``NVCF-POLL-SECONDS``: 0 counts as 1, above 3600 or no number is a `BadRequest`."""
    if not value.isdigit() or len(value) > 9:
        raise BadRequest("NVCF-POLL-SECONDS is not a whole number of seconds from 1 to 3600")
    poll_s = int(value)
    if poll_s > MAX_POLL_S:
        raise BadRequest(f"NVCF-POLL-SECONDS is above {MAX_POLL_S}")
    return poll_s or 1


def _named(
    entry: FunctionEntry, function_id: str, version_id: str, principal: Principal
) -> FunctionVersion:
    version = entry.versions.get(version_id)
    if version is None or not principal.sees(entry, version):
        raise _not_found(function_id, version_id)
    if not principal.may_invoke(entry, version, is_named=True):
        raise Forbidden(f"{_name(function_id, version_id)}: the key is not good for it")
    if version.state not in INVOCABLE:
        raise _not_invocable(function_id, version_id, {version.state})
    return version


def _permitted(
    entry: FunctionEntry, function_id: str, principal: Principal
) -> tuple[FunctionVersion, ...]:
    """Return the invocable versions that the caller sees and the key is good for."""
    seen = [v for v in entry.versions.values() if principal.sees(entry, v)]
    if not seen:
        raise _not_found(function_id, None)
    permitted = [v for v in seen if principal.may_invoke(entry, v, is_named=False)]
    if not permitted:
        raise Forbidden(f"{_name(function_id, None)}: the key is not good for it")
    return tuple(v for v in permitted if v.state in INVOCABLE)


def _not_found(function_id: str, version_id: str | None) -> FunctionNotFound:
    return FunctionNotFound(f"{_name(function_id, version_id)}: not found")


def _not_invocable(
    function_id: str, version_id: str | None, states: Iterable[State]
) -> FunctionNotFound | NotInvocable:
    """Return 400 if an instance may come back (DEGRADED), else 404; both with the true state."""
    found = set(states)
    state = next((s for s in _NEAREST_FIRST if s in found), None)
    if state is None:
        return _not_found(function_id, version_id)
    detail = f"{_name(function_id, version_id)}: cannot be invoked while {state.value}"
    if state is State.DEGRADED:
        return NotInvocable(detail, functionStatus=state.value)
    return FunctionNotFound(detail, functionStatus=state.value)


def _name(function_id: str, version_id: str | None) -> str:
    if version_id is None:
        return f"Function id '{function_id}'"
    return f"Function id '{function_id}', version '{version_id}'"
