"""Queues of function versions, and the position of a request in its queue.

Source: `docs/wire.md` §12.1, §12.2.
"""

from gateway.api.access import (
    VisibleVersion,
    find_visible,
    own_versions,
    refuse_public,
    require_reach,
)
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.queues import PositionResponse, QueuesResponse, QueueView
from gateway.domain.model import BUSY, FunctionVersion
from gateway.errors import NotFound

MAX_POSITION = 1000
"""A position further back is reported as this one."""


async def by_function(api: Api, call: Call[None, None]) -> QueuesResponse:
    """Get the queues of the deployed versions of a function."""
    entry = api.catalog.function(call.function_id)
    refuse_public(entry)
    own = own_versions(entry, call.account)
    if entry is None or not own:
        raise _no_queue(call)
    require_reach(call.principal, VisibleVersion(entry, own[0]), is_named=False)
    return await _queues(api, call, own)


async def by_version(api: Api, call: Call[None, None]) -> QueuesResponse:
    """Get the queue of a version."""
    entry, version = await find_visible(api, call)
    refuse_public(entry, call.version_id)
    if version.account != call.account:
        raise _no_queue(call)
    return await _queues(api, call, [version])


async def position(api: Api, call: Call[None, None]) -> PositionResponse:
    """Get the position of a request, as its caller or as the owner of the function."""
    found = await api.requests.find(call.variable("requestId"))
    if found is None:
        raise _no_request()
    entry = api.catalog.function(found.function_id)
    version = entry.versions.get(found.version_id) if entry is not None else None
    if entry is None or version is None or call.account not in (found.account, version.account):
        raise _no_request()
    require_reach(call.principal, VisibleVersion(entry, version))
    reported = min(found.position, MAX_POSITION)
    return PositionResponse(
        function_id=found.function_id,
        function_version_id=found.version_id,
        position_in_queue=reported,
        position=reported,
    )


async def _queues(
    api: Api, call: Call[None, None], versions: list[FunctionVersion]
) -> QueuesResponse:
    deployed = sorted(
        (version for version in versions if version.state in BUSY),
        key=lambda version: (version.created_at, version.version_id),
    )
    if not deployed:
        raise _no_queue(call)
    queues = []
    for version in deployed:
        depth = await api.queue.depth(version.version_id)
        queues.append(
            QueueView(
                function_id=version.function_id,
                function_version_id=version.version_id,
                function_name=version.name,
                function_status=version.state.value,
                queue_depth=depth,
                size=depth,
            )
        )
    return QueuesResponse(function_id=call.function_id, queues=queues)


def _no_queue(call: Call[None, None]) -> NotFound:
    return NotFound(f"Function id '{call.function_id}': queue not found, likely not deployed")


def _no_request() -> NotFound:
    return NotFound("The request is neither waiting nor in progress")


_TAG = "queues"
_SCOPES = ("queue_details",)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "GET",
        "/v2/nvcf/queues/functions/{functionId}",
        by_function,
        "Get the queues of a function",
        _TAG,
        _SCOPES,
        QueuesResponse,
    ),
    Route(
        "GET",
        "/v2/nvcf/queues/functions/{functionId}/versions/{functionVersionId}",
        by_version,
        "Get the queue of a version",
        _TAG,
        _SCOPES,
        QueuesResponse,
    ),
    Route(
        "GET",
        "/v2/nvcf/queues/{requestId}/position",
        position,
        "Get the position of a request in its queue",
        _TAG,
        _SCOPES,
        PositionResponse,
    ),
)
