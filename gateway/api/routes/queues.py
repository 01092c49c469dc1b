"""What waits: queues of a function's versions, and a request's place in line (§1.9, §4.4)."""

from gateway.api.access import Seen, refuse_public, require_reach, visible
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.queues import PositionAnswer, QueuesAnswer, QueueView
from gateway.domain.model import BUSY, FunctionVersion
from gateway.errors import NotFound

MAX_POSITION = 1000


async def by_function(api: Api, call: Call[None, None]) -> QueuesAnswer:
    """Look at the queues of a function's deployed versions."""
    entry = api.catalog.function(call.function_id)
    refuse_public(entry)
    own = [v for v in entry.versions.values() if v.account == call.account] if entry else []
    if entry is None or not own:
        raise _no_queue(call)
    require_reach(call.principal, Seen(entry, own[0]), is_named=False)
    return await _queues(api, call, own)


async def by_version(api: Api, call: Call[None, None]) -> QueuesAnswer:
    """Look at the queue of a version."""
    seen = await visible(api, call)
    refuse_public(seen.entry, call.version_id)
    if seen.version.account != call.account:
        raise _no_queue(call)
    return await _queues(api, call, [seen.version])


async def position(api: Api, call: Call[None, None]) -> PositionAnswer:
    """Return a request's place in line, for its caller and for the function's owner."""
    found = await api.requests.find(call.part("requestId"))
    if found is None:
        raise _no_request()
    entry = api.catalog.function(found.function_id)
    version = entry.versions.get(found.version_id) if entry is not None else None
    if entry is None or version is None or call.account not in (found.account, version.account):
        raise _no_request()
    require_reach(call.principal, Seen(entry, version))
    place = min(found.position, MAX_POSITION)
    return PositionAnswer(
        function_id=found.function_id,
        function_version_id=found.version_id,
        position_in_queue=place,
        position=place,
    )


async def _queues(
    api: Api, call: Call[None, None], versions: list[FunctionVersion]
) -> QueuesAnswer:
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
    return QueuesAnswer(function_id=call.function_id, queues=queues)


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
        "Look at a function's queues",
        _TAG,
        _SCOPES,
        QueuesAnswer,
    ),
    Route(
        "GET",
        "/v2/nvcf/queues/functions/{functionId}/versions/{functionVersionId}",
        by_version,
        "Look at a version's queue",
        _TAG,
        _SCOPES,
        QueuesAnswer,
    ),
    Route(
        "GET",
        "/v2/nvcf/queues/{requestId}/position",
        position,
        "Find a request's place in line",
        _TAG,
        _SCOPES,
        PositionAnswer,
    ),
)
