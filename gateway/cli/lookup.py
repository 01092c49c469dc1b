"""Functions and versions by name or id, as commands take them.

Names are looked up over the API, among the account's own functions first. Without a version, the
latest is meant: of those that are deployed, where the command is about a deployment.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.cli.api_client import ApiClient, Json
from gateway.cli.errors import CommandError, usage
from wire.ids import parse_uuid

_is_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}").fullmatch
_MAX_LISTED = 5


class Ids(NamedTuple):
    """The ids of a version."""

    function_id: str
    version_id: str

    @property
    def path(self) -> str:
        """The part of the API's paths that names the version."""
        return f"functions/{self.function_id}/versions/{self.version_id}"


class VersionName(NamedTuple):
    """What names a version on the command line. Make it with `version_name`."""

    function: str
    version: str | None

    async def find(self, api: ApiClient, *, is_deployed: bool = False) -> Ids:
        """Return the version that is named, the latest if only its function is.

        ``is_deployed``: the latest of those that are deployed, if there are any. Raises
        `CommandError`.
        """
        if _is_id(self.function) and self.version is not None and _is_id(self.version):
            return Ids(self.function, self.version)
        versions = await find_versions(api, self.function)
        if self.version is not None:
            return _ids(_one_of(versions, self.function, self.version))
        deployed = [version for version in versions if version["status"] != "INACTIVE"]
        return _ids((deployed if is_deployed and deployed else versions)[-1])

    async def find_only(self, api: ApiClient, *, is_deployed: bool = False) -> Ids:
        """Return the version that is named, for a command that cannot be undone.

        Raises `CommandError` if only a function is named that has several versions.
        """
        if self.version is None:
            versions = await find_versions(api, self.function)
            if is_deployed:
                versions = [one for one in versions if one["status"] != "INACTIVE"] or versions[-1:]
            if len(versions) > 1:
                what = "deployed versions" if is_deployed else "versions"
                raise CommandError(
                    f"{self.function} has {len(versions)} {what}: give one of "
                    f"{_some_ids(versions, 'versionId')}."
                )
        return await self.find(api, is_deployed=is_deployed)


def version_name(function: str, version: str | None = None) -> VersionName:
    """Return what names a version. Ends the program for text that is neither an id nor a name."""
    return VersionName(_checked(function), None if version is None else _checked(version))


async def find_versions(api: ApiClient, function: str) -> list[Json]:
    """Return the versions of the function with this id or name, oldest first; at least one.

    Raises `CommandError`.
    """
    if _is_id(function):
        return await api.versions(f"functions/{function}/versions", None)
    for query in ({"visibility": "private"}, {}):
        listed = await api.versions("functions", None, **query)
        found = dict.fromkeys(one["id"] for one in listed if one["name"] == function)
        if len(found) > 1:
            named = [one for one in listed if one["id"] in found]
            raise CommandError(
                f"Several functions are called {function}: give one of {_some_ids(named, 'id')}."
            )
        if found:
            return [one for one in listed if one["id"] in found]
    raise CommandError(
        f"There is no function called {function}. List functions with 'gateway functions list'."
    )


async def find_function(api: ApiClient, function: str) -> str:
    """Return the id of the function with this id or name. Raises `CommandError`."""
    return function if _is_id(function) else str((await find_versions(api, function))[0]["id"])


def _one_of(versions: list[Json], function: str, version: str) -> Json:
    """Return the version with this id or name; of several with the name, there is no choice."""
    found = [one for one in versions if version in (one["versionId"], one["name"])]
    if not found:
        raise CommandError(
            f"{function} has no version {version}: give one of {_some_ids(versions, 'versionId')}."
        )
    if len(found) > 1:
        raise CommandError(
            f"{function} has {len(found)} versions called {version}: give one of "
            f"{_some_ids(found, 'versionId')}."
        )
    return found[0]


def _some_ids(versions: list[Json], member: str) -> str:
    """Return the ids of the latest ``versions`` as text."""
    ids = list(dict.fromkeys(str(version[member]) for version in reversed(versions)))
    more = ", …" if len(ids) > _MAX_LISTED else ""
    return ", ".join(ids[:_MAX_LISTED]) + more


def _ids(version: Mapping[str, Any]) -> Ids:
    return Ids(version["id"], version["versionId"])


def _checked(text: str) -> str:
    canonical = parse_uuid(text.encode())
    if canonical is not None:
        return canonical
    if _is_name(text) is None:
        raise usage(f"{text or 'An empty text'} is neither an id nor a name.")
    return text


def _is_id(text: str) -> bool:
    return parse_uuid(text.encode()) is not None
