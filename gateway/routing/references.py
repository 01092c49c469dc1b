"""Functions that are named in words: in a path or as the ``model`` of a body (`docs/wire.md` §1.5).

    {function id or name}[:{version id}][/{model}]

Names need not be unique. A caller's own functions come before those that others share with it or
make public, so that nobody can take over the name of another account's function.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.domain.model import INVOCABLE
from gateway.domain.principal import INVOKE, Principal
from gateway.domain.readmodel import FunctionEntry, ReadModel
from gateway.errors import AmbiguousName
from wire.ids import parse_uuid

_is_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}").fullmatch
"""The grammar of a function's name (`docs/wire.md` §10.1)."""
_MAX_CHOICES = 8
"""Functions that the error for an ambiguous name lists."""


class Reference(NamedTuple):
    """``function`` is a name, or with ``is_id`` a canonical id.

    ``model`` is what the function is to be asked for in place of the text; `None` leaves the text.
    """

    function: str
    is_id: bool
    version_id: str | None = None
    model: str | None = None


class Named(NamedTuple):
    """The function, and perhaps the version, that a call is for."""

    function_id: str
    version_id: str | None = None


def parse_reference(text: str) -> Reference | None:
    """Return what ``text`` names, `None` if it can be no function's."""
    head, slash, model = text.partition("/")
    function, colon, version = head.partition(":")
    if _is_name(function) is None or (slash and not model):
        return None
    version_id = parse_uuid(version.encode()) if colon else None
    if colon and version_id is None:
        return None
    function_id = parse_uuid(function.encode())
    return Reference(
        function_id or function, function_id is not None, version_id, model if slash else None
    )


class FunctionNames:
    """Finds the functions that a caller may call, by the read model alone."""

    __slots__ = ("_model",)

    def __init__(self, model: ReadModel) -> None:
        self._model = model

    def find(self, reference: Reference, principal: Principal) -> Named | None:
        """Return the function that ``principal`` means, `None` if it may call none of this name.

        Raises `AmbiguousName`.
        """
        if reference.is_id:
            function_id = reference.function
            if self._callable(function_id, principal) is None:
                return None
        else:
            ids = self.callable_ids(reference.function, principal)
            if len(ids) > 1:
                raise _ambiguous(ids)
            if not ids:
                return None
            function_id = ids[0]
        if reference.version_id is not None:
            return Named(function_id, reference.version_id)
        return Named(function_id, self._only_version(function_id, principal))

    def only(self, principal: Principal) -> Named | None:
        """Return the function that a credential is good for if it is good for that one alone.

        It has to name it: a credential for all functions of an account that has one is for all.
        """
        reach = principal.reach
        if reach.own or reach.shared or INVOKE not in principal.scopes:
            return None
        ids = reach.functions.union(one.partition("/")[0] for one in reach.versions)
        if len(ids) != 1:
            return None
        (function_id,) = ids
        if function_id in reach.functions:
            return Named(function_id)
        if len(reach.versions) > 1:
            return None
        (version,) = reach.versions
        return Named(function_id, version.partition("/")[2])

    def callable_ids(self, name: str, principal: Principal) -> list[str]:
        """Return the functions that ``principal`` can mean by ``name``.

        Those that can be invoked now, if there are any; of these its own, if there are any.
        """
        found = self.candidates(name, principal)
        own = [(id_, entry) for id_, entry in found if entry.account == principal.account]
        found = own or found
        ready = [id_ for id_, entry in found if is_invocable(entry, principal)]
        return ready or [id_ for id_, _ in found]

    def candidates(self, name: str, principal: Principal) -> list[tuple[str, FunctionEntry]]:
        """Return all functions of this name that ``principal`` may call."""
        found = [
            (function_id, self._callable(function_id, principal))
            for function_id in self._model.named(principal.account, name)
        ]
        return [(function_id, entry) for function_id, entry in found if entry is not None]

    def seen_names(self, principal: Principal) -> Iterator[str]:
        """Return the names of the functions that ``principal`` sees."""
        return iter(self._model.names(principal.account))

    def entry(self, function_id: str) -> FunctionEntry | None:
        return self._model.function(function_id)

    def _callable(self, function_id: str, principal: Principal) -> FunctionEntry | None:
        entry = self._model.function(function_id)
        if entry is None:
            return None
        versions = entry.versions.values()
        may = principal.may_invoke
        if any(principal.sees(entry, v) and may(entry, v, is_named=True) for v in versions):
            return entry
        return None

    def _only_version(self, function_id: str, principal: Principal) -> str | None:
        """Return the one version that a credential covers; `None` if it covers the function."""
        entry = self._model.function(function_id)
        if entry is None or function_id in principal.reach.functions:
            return None
        covered = [
            version_id
            for version_id in entry.versions
            if f"{function_id}/{version_id}" in principal.reach.versions
        ]
        covers_all = any(
            principal.reaches(entry, v, is_named=False) for v in entry.versions.values()
        )
        return covered[0] if len(covered) == 1 and not covers_all else None


def is_invocable(entry: FunctionEntry, principal: Principal) -> bool:
    """Return whether a version that ``principal`` may call can be invoked now."""
    return any(
        version.state in INVOCABLE
        and principal.sees(entry, version)
        and principal.may_invoke(entry, version, is_named=True)
        for version in entry.versions.values()
    )


def _ambiguous(ids: list[str]) -> AmbiguousName:
    listed = ", ".join(ids[:_MAX_CHOICES])
    more = f" and {len(ids) - _MAX_CHOICES} more" if len(ids) > _MAX_CHOICES else ""
    return AmbiguousName(f"Several functions have this name; name one by its id: {listed}{more}")
