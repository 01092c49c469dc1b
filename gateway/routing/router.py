"""Selects a version that the caller can invoke for a function id, or reports why there is none.

The order of the checks decides what an unauthorised caller learns (`docs/wire.md` §2.1): scope
(403), does the function exist for this account (404), does the key cover it (403), its state (404,
`docs/wire.md` §2.2). A function of another account that is not shared looks as if it did not exist.
A state that will pass is no error: the request waits in the queue. A call that names no version can
get any serving version that the caller sees, in proportion to the running capacity: own, public and
shared alike, so that a public version does not hide the others.
"""

from collections.abc import Callable, Iterable, Sequence

from gateway.domain.model import INVOCABLE, FunctionVersion, VersionState
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.readmodel import FunctionEntry, ReadModel, find_invocable
from gateway.errors import Forbidden, FunctionNotFound

_NEAREST_FIRST = (VersionState.ERROR, VersionState.INACTIVE)
"""Which state an error names when no version is invocable: the one closest to being so."""


class Router:
    """Picks function versions, by the read model alone."""

    __slots__ = ("_random", "model")

    def __init__(self, model: ReadModel, random: Callable[[], float]) -> None:
        """``random`` returns a float from 0.0 up to but not including 1.0."""
        self.model = model
        self._random = random

    def pick(
        self, function_id: str, version_id: str | None, principal: Principal
    ) -> FunctionVersion:
        """Return the version with this id, or without one any version that can serve.

        Raises `Forbidden` or `FunctionNotFound`.
        """
        if INVOKE not in principal.scopes:
            raise Forbidden(f"The credential lacks the scope {INVOKE}")
        entry = self.model.function(function_id)
        if entry is None:
            raise _not_found(function_id, version_id)
        if version_id is not None:
            return _find_version(entry, function_id, version_id, principal)
        if entry.account == principal.account and principal.reach.own:
            candidates: tuple[FunctionVersion, ...] = entry.invocable
        else:
            candidates = _find_permitted(entry, function_id, principal)
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            return choose(candidates, self._random())
        raise _not_invocable(
            function_id,
            None,
            {v.state for v in entry.versions.values() if principal.sees(entry, v)},
        )

    def is_settled(self, function_id: str, version_id: str | None, account: str) -> bool:
        """Return whether `pick` returns the same for a caller until the read model changes."""
        if version_id is not None:
            return True
        entry = self.model.function(function_id)
        return entry is not None and entry.account == account and len(entry.invocable) == 1


def choose(candidates: Sequence[FunctionVersion], random: float) -> FunctionVersion:
    """Return one of ``candidates`` with a probability equal to its share of the running capacity.

    ``random`` is from 0.0 up to but not including 1.0. If nothing runs, all are equally likely.
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


def _find_version(
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


def _find_permitted(
    entry: FunctionEntry, function_id: str, principal: Principal
) -> tuple[FunctionVersion, ...]:
    """Return the invocable versions that the caller sees and the key covers."""
    visible = [v for v in entry.versions.values() if principal.sees(entry, v)]
    if not visible:
        raise _not_found(function_id, None)
    permitted = [v for v in visible if principal.may_invoke(entry, v, is_named=False)]
    if not permitted:
        raise Forbidden(f"{_name(function_id, None)}: the key is not good for it")
    return find_invocable(permitted)


def _not_found(function_id: str, version_id: str | None) -> FunctionNotFound:
    return FunctionNotFound(f"{_name(function_id, version_id)}: Not found in this account")


def _not_invocable(
    function_id: str, version_id: str | None, states: Iterable[VersionState]
) -> FunctionNotFound:
    """Return an error that names the state."""
    found = set(states)
    state = next((s for s in _NEAREST_FIRST if s in found), None)
    if state is None:
        return _not_found(function_id, version_id)
    detail = f"{_name(function_id, version_id)}: cannot be invoked while {state.value}"
    return FunctionNotFound(detail, functionStatus=state.value)


def _name(function_id: str, version_id: str | None) -> str:
    if version_id is None:
        return f"Function id '{function_id}'"
    return f"Function id '{function_id}', version '{version_id}'"
