"""Compare-and-set: change or delete a stored record that others change at the same time.

Each function reads a record with its revision, computes the change and writes on condition that the
revision is still the stored one. If another writer was faster, the store raises `Conflict` and the
whole step is repeated, at most `ATTEMPTS` times. The reconciler writes states and health at any
time, so a conflict with it is not an error of the caller. Code that creates a record (revision 0)
does not use this module: there, `Conflict` means that the record exists.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.domain.model import (
    AccountSecrets,
    Deployment,
    Function,
    FunctionVersion,
    Secrets,
    VersionDetails,
)
from gateway.domain.ports import AccountStore
from gateway.errors import Conflict

Value = TypeVar("Value")
NewValue = TypeVar("NewValue")
Deletable = TypeVar(
    "Deletable", Function, FunctionVersion, VersionDetails, Deployment, Secrets, AccountSecrets
)

ATTEMPTS = 32
"""Up to this many concurrent writers of one record succeed without a 409."""


async def compare_and_set(
    read: Callable[[], Awaitable[tuple[Value, int] | None]],
    change: Callable[[Value], NewValue],
    write: Callable[[NewValue, int], Awaitable[object]],
) -> NewValue | None:
    """Change what ``read`` returns; return the new value, `None` if ``read`` returned `None`.

    ``read`` returns a value and its revision. ``change`` may be called several times; if it returns
    an equal value, nothing is written. ``write`` stores the new value in place of that revision and
    raises `Conflict` if the stored revision is another. Raises `Conflict` after `ATTEMPTS`
    conflicts, and what ``read``, ``change`` and ``write`` raise; a `Conflict` of ``read`` or
    ``change`` is passed on at once.
    """
    for _ in range(ATTEMPTS):
        found = await read()
        if found is None:
            return None
        value, revision = found
        changed = change(value)
        is_unchanged = changed == value
        if is_unchanged:
            return changed
        try:
            await write(changed, revision)
        except Conflict:
            continue
        return changed
    raise Conflict


async def compare_and_delete(
    read: Callable[[], Awaitable[tuple[Value, int] | None]],
    delete: Callable[[Value, int], Awaitable[object]],
) -> Value | None:
    """Delete what ``read`` returns; return it, `None` if ``read`` returned `None`.

    ``delete`` raises `Conflict` if the stored revision is another. Raises as `compare_and_set`.
    """
    for _ in range(ATTEMPTS):
        found = await read()
        if found is None:
            return None
        value, revision = found
        try:
            await delete(value, revision)
        except Conflict:
            continue
        return value
    raise Conflict


async def change_version(
    store: AccountStore,
    function_id: str,
    version_id: str,
    change: Callable[[FunctionVersion], FunctionVersion],
) -> FunctionVersion | None:
    """Change a version; return the new record, `None` if the version does not exist."""
    return await compare_and_set(lambda: store.version(function_id, version_id), change, store.put)


async def change_details(
    store: AccountStore,
    function_id: str,
    version_id: str,
    change: Callable[[VersionDetails], VersionDetails],
) -> VersionDetails | None:
    """Change the details of a version; return the new record, `None` if there is none."""
    return await compare_and_set(lambda: store.details(function_id, version_id), change, store.put)


async def change_deployment(
    store: AccountStore,
    function_id: str,
    version_id: str,
    change: Callable[[Deployment], Deployment],
) -> Deployment | None:
    """Change the deployment of a version; return the new record, `None` if there is none."""
    return await compare_and_set(
        lambda: store.deployment(function_id, version_id), change, store.put
    )


async def delete_record(
    store: AccountStore, read: Callable[[], Awaitable[tuple[Deletable, int] | None]]
) -> Deletable | None:
    """Delete the record of ``store`` that ``read`` returns, as `compare_and_delete` does."""
    return await compare_and_delete(
        read, lambda record, revision: store.delete(record.key, revision)
    )
