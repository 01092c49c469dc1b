"""Changes to records that others change too: read, change, write, and again if somebody was first.

The reconciler writes states and health at any time, and another call may share the version: that is
nothing to trouble a caller with. Only who makes something that is there by now (a second deploy) is
told of a conflict.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.domain.model import (
    Account,
    ApiKey,
    Deployment,
    DeploymentRemoved,
    DetailsRemoved,
    Function,
    FunctionRemoved,
    FunctionVersion,
    VersionDetails,
    VersionRemoved,
)
from gateway.domain.ports import AccountStore
from gateway.errors import Conflict

Clearable = VersionRemoved | DeploymentRemoved | DetailsRemoved | FunctionRemoved
Changeable = TypeVar(
    "Changeable", Function, FunctionVersion, VersionDetails, Deployment, Account, ApiKey
)
ATTEMPTS = 32
"""Of so many who change one record at the same time nobody is told of a conflict."""


async def change_version(
    store: AccountStore,
    function_id: str,
    version_id: str,
    change: Callable[[FunctionVersion], FunctionVersion],
) -> FunctionVersion | None:
    """Change a version as it is now; return what it has become, `None` when it is gone.

    ``change`` may be asked several times; returning what it got writes nothing.
    """
    return await change_record(store.put, lambda: store.version(function_id, version_id), change)


async def change_details(
    store: AccountStore,
    function_id: str,
    version_id: str,
    change: Callable[[VersionDetails], VersionDetails],
) -> VersionDetails | None:
    """Change how a version is registered as `change_version` changes the version."""
    return await change_record(store.put, lambda: store.details(function_id, version_id), change)


async def change_deployment(
    store: AccountStore,
    function_id: str,
    version_id: str,
    change: Callable[[Deployment], Deployment],
) -> Deployment | None:
    """Change a deployment as `change_version` changes a version."""
    return await change_record(store.put, lambda: store.deployment(function_id, version_id), change)


async def change_record(
    put: Callable[[Changeable, int], Awaitable[int]],
    read: Callable[[], Awaitable[tuple[Changeable, int] | None]],
    change: Callable[[Changeable], Changeable],
) -> Changeable | None:
    """Change what ``read`` returns, with its revision, as `change_version` changes a version.

    ``put`` writes a record in place of a revision; it raises `Conflict` when that is another.
    """
    for _ in range(ATTEMPTS):
        found = await read()
        if found is None:
            return None
        changed = change(found[0])
        if changed == found[0]:
            return changed
        try:
            await put(changed, found[1])
        except Conflict:
            continue
        return changed
    raise Conflict


async def clear(
    store: AccountStore, name: Clearable
) -> FunctionVersion | Deployment | VersionDetails | Function | None:
    """Delete a record as it is now; return what it was, `None` when it was gone."""
    for _ in range(ATTEMPTS):
        found = await _read(store, name)
        if found is None:
            return None
        try:
            await store.delete(name, found[1])
        except Conflict:
            continue
        return found[0]
    raise Conflict


async def _read(
    store: AccountStore, name: Clearable
) -> tuple[FunctionVersion | Deployment | VersionDetails | Function, int] | None:
    match name:
        case VersionRemoved():
            return await store.version(*name)
        case DeploymentRemoved():
            return await store.deployment(*name)
        case DetailsRemoved():
            return await store.details(*name)
        case FunctionRemoved():
            return await store.function(*name)
