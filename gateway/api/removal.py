"""Deletions of several records: the first write decides, so each is all or nothing.

Without the first record the others have no effect, and what cannot be deleted of them is only
logged. If the first write fails, the store is read again, and the response says whether anything
was deleted: a response of the store that was lost looks like a refused write.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.errors import Conflict, StoreUnavailable
from runtime.events import emit

Result = TypeVar("Result")

_log = logging.getLogger("gateway.api")


async def decide(
    write: Callable[[], Awaitable[Result]],
    has_happened: Callable[[], Awaitable[Result | None]],
    refused: str,
) -> Result:
    """Return the result of ``write``, the step that decides.

    If the store fails, ``has_happened`` reads what would be the result, and returns `None` if
    nothing was written. Raises `StoreUnavailable` with the detail ``refused``, or with one that
    says that the outcome is not known.
    """
    try:
        return await write()
    except StoreUnavailable as error:
        try:
            found = await has_happened()
        except StoreUnavailable:
            raise StoreUnavailable(
                "The store does not respond: it is not known whether anything was deleted",
                cause=str(error),
            ) from error
        if found is None:
            raise StoreUnavailable(
                f"The store cannot be written: {refused}", cause=str(error)
            ) from error
        return found


async def delete_rest(version_id: str, *steps: Callable[[], Awaitable[object]]) -> None:
    """Do each of ``steps``, which delete what has no effect any more; log those that fail."""
    for step in steps:
        try:
            await step()
        except (StoreUnavailable, Conflict) as error:
            fields = {"version_id": version_id, "error": str(error)}
            emit(_log, "control.left_over", logging.WARNING, **fields)
