"""Functions and versions: register, look at, change what may change, delete (§1.2 to §1.4)."""

from collections.abc import Mapping
from dataclasses import replace

from gateway.control.access import (
    DETAILS,
    LIST,
    owned,
    owned_function,
    refuse_public,
    visible,
)
from gateway.control.api import AnyRoute, Api, Call, Route
from gateway.control.dto.functions import (
    CreateFunction,
    DetailsQuery,
    FunctionAnswer,
    UpdateMetadata,
    UpdateRateLimit,
)
from gateway.control.records import clear
from gateway.control.views import function_view
from gateway.errors import BadRequest, Conflict, Forbidden
from gateway.functions.deployment import VersionDetails
from gateway.functions.lifecycle import check_family, registered, timestamp
from gateway.functions.model import (
    DeploymentRemoved,
    DetailsRemoved,
    Function,
    FunctionRemoved,
    FunctionVersion,
    VersionRemoved,
)
from gateway.functions.readmodel import FunctionEntry
from wire.ids import FunctionId, VersionId

_PIECE = 100
"""Versions that are put into words before others get their turn on the loop."""


async def create(api: Api, call: Call[CreateFunction, None]) -> FunctionAnswer:
    """Register a function with its first version."""
    if not call.principal.reach.own:
        raise Forbidden("The credential is good for some functions only, not for new ones")
    _check_known(call.body)
    function_id, store = FunctionId(api.new_id()), call.own(api)
    async with api.quotas.place(store, api.catalog, function_id, api.clock()):
        await store.put(Function(function_id, call.account), 0)
        return await _register(api, call, function_id)


async def create_version(api: Api, call: Call[CreateFunction, None]) -> FunctionAnswer:
    """Register another version of a function."""
    entry = await _own_entry(api, call)
    refuse_public(entry)
    kinds = []
    for version in entry.versions.values():
        details = await _details(api, call, version)
        if details is not None:
            kinds.append(str(details.spec.get("functionType")))
    check_family(kinds, call.body.function_type or "DEFAULT")
    _check_known(call.body)
    return await _register(api, call, FunctionId(call.function_id))


async def get(api: Api, call: Call[None, DetailsQuery]) -> FunctionAnswer:
    """Return a version, with its instances for the owner."""
    seen = await visible(api, call)
    version = seen.version
    is_owner = version.account == call.account
    has_details = is_owner and DETAILS in call.principal.scopes
    details = await _details(api, call, version)
    return FunctionAnswer(
        function=function_view(
            version,
            details,
            is_owner=is_owner,
            with_secrets=has_details and call.query.include_secrets,
            instances=api.catalog.instances(version.version_id) if has_details else None,
        )
    )


async def delete(api: Api, call: Call[None, None]) -> None:
    """Delete a version in any state, at once: its queue and instances go with it.

    The version goes first: then nothing else of it can be reached, and what a process that dies
    here leaves behind belongs to nobody.
    """
    _, revision = await owned(api, call)
    store, function_id, version_id = call.own(api), call.function_id, call.version_id
    await store.delete(VersionRemoved(function_id, version_id), revision)
    await clear(store, DeploymentRemoved(function_id, version_id))
    details = await clear(store, DetailsRemoved(function_id, version_id))
    if isinstance(details, VersionDetails) and details.secret_names:
        await api.secrets.delete(call.account, function_id, version_id)
    entry = api.catalog.function(function_id)
    if entry is None or not entry.versions:
        await clear(store, FunctionRemoved(function_id))


async def update(api: Api, call: Call[UpdateMetadata, None]) -> FunctionAnswer:
    """Change tags, rate limit or LLM configuration."""
    version, _ = await owned(api, call)
    body = call.body
    changed = body.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"model_updates"}
    )
    found = await call.own(api).details(call.function_id, call.version_id)
    if found is None:
        raise Conflict
    details, revision = found
    spec = {**details.spec, **changed}
    is_llm = spec.get("functionType") == "LLM"
    if not is_llm and (body.llm_invocation_config or body.model_updates):
        raise BadRequest("llmInvocationConfig and modelUpdates are for LLM functions")
    if body.model_updates:
        updates = {
            one.name: one.llm_config.model_dump(mode="json", by_alias=True, exclude_none=True)
            for one in body.model_updates
        }
        spec["models"] = _with_updates(spec.get("models"), updates)
    details = await _put_spec(api, call, details, revision, spec)
    return FunctionAnswer(function=function_view(version, details, is_owner=True))


async def update_metadata(api: Api, call: Call[UpdateMetadata, None]) -> FunctionAnswer:
    """Do as PUT on the version does."""
    return await update(api, call)


async def set_rate_limit(api: Api, call: Call[UpdateRateLimit, None]) -> None:
    """Set the rate limit of a version."""
    await owned(api, call)
    limit = call.body.rate_limit.model_dump(mode="json", by_alias=True, exclude_none=True)
    await _change_rate_limit(api, call, limit)


async def remove_rate_limit(api: Api, call: Call[None, None]) -> None:
    """Take the rate limit of a version away."""
    await owned(api, call)
    await _change_rate_limit(api, call, None)


async def _change_rate_limit(
    api: Api, call: Call[UpdateRateLimit, None] | Call[None, None], limit: object
) -> None:
    found = await call.own(api).details(call.function_id, call.version_id)
    if found is None:
        raise Conflict
    spec = {name: value for name, value in found[0].spec.items() if name != "rateLimit"}
    if limit is not None:
        spec["rateLimit"] = limit
    await _put_spec(api, call, *found, spec)


async def _put_spec(
    api: Api,
    call: Call[UpdateMetadata, None] | Call[UpdateRateLimit, None] | Call[None, None],
    details: VersionDetails,
    revision: int,
    spec: Mapping[str, object],
) -> VersionDetails:
    changed = replace(details, spec=spec, updated_at=timestamp(api.clock()))
    await call.own(api).put(changed, revision)
    return changed


async def _register(
    api: Api, call: Call[CreateFunction, None], function_id: FunctionId
) -> FunctionAnswer:
    version_id = VersionId(api.new_id())
    secrets = {secret.name: secret.value for secret in call.body.secrets or ()}
    details, version = registered(
        call.account, function_id, version_id, call.body.spec(), api.clock(), list(secrets)
    )
    if secrets:
        await api.secrets.put(call.account, function_id, version_id, secrets)
    store = call.own(api)
    await store.put(details, 0)
    await store.put(version, 0)
    return FunctionAnswer(
        function=function_view(version, details, is_owner=True, with_secrets=True)
    )


async def _own_entry(api: Api, call: Call[CreateFunction, None]) -> FunctionEntry:
    """Return the caller's own function, from the store when this process has not heard of it."""
    if api.catalog.function(call.function_id) is None:
        found = await call.own(api).function(call.function_id)
        if found is not None and call.principal.reach.own:
            return FunctionEntry()
    return owned_function(api, call)


def _check_known(body: CreateFunction) -> None:
    if body.telemetries is not None:
        raise BadRequest("The telemetries are not known to this account")


def _with_updates(models: object, updates: Mapping[str, object]) -> list[object]:
    known = models if isinstance(models, list) else []
    if not set(updates) <= {model["name"] for model in known}:
        raise BadRequest("modelUpdates names a model that the version does not have")
    return [
        {**model, "llmConfig": {**model.get("llmConfig", {}), **updates[model["name"]]}}  # type: ignore[dict-item]  # both are objects
        if model["name"] in updates
        else model
        for model in known
    ]


async def _details(
    api: Api, call: Call[None, DetailsQuery] | Call[CreateFunction, None], version: FunctionVersion
) -> VersionDetails | None:
    """Return a version's details; the store is asked when this process does not have them yet."""
    details = api.catalog.details(version.function_id, version.version_id)
    if details is None and version.account == call.account:
        found = await call.own(api).details(version.function_id, version.version_id)
        details = found[0] if found is not None else None
    return details


_VERSION = "/v2/nvcf/functions/{functionId}/versions/{functionVersionId}"
_RATE_LIMIT = "/v2/nvcf/ratelimit/functions/{functionId}/versions/{functionVersionId}"
_TAG = "functions"

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        "/v2/nvcf/functions",
        create,
        "Register a function",
        _TAG,
        ("register_function",),
        FunctionAnswer,
        CreateFunction,
    ),
    Route(
        "POST",
        "/v2/nvcf/functions/{functionId}/versions",
        create_version,
        "Register another version",
        _TAG,
        ("register_function",),
        FunctionAnswer,
        CreateFunction,
    ),
    Route(
        "GET", _VERSION, get, "Look at a version", _TAG, LIST, FunctionAnswer, query=DetailsQuery
    ),
    Route("DELETE", _VERSION, delete, "Delete a version", _TAG, ("delete_function",), status=204),
    Route(
        "PUT",
        _VERSION,
        update,
        "Change a version's metadata",
        _TAG,
        ("update_function",),
        FunctionAnswer,
        UpdateMetadata,
    ),
    Route(
        "PUT",
        "/v2/nvcf/metadata/functions/{functionId}/versions/{functionVersionId}",
        update_metadata,
        "Change a version's metadata",
        _TAG,
        ("update_function",),
        FunctionAnswer,
        UpdateMetadata,
        is_deprecated=True,
    ),
    Route(
        "PUT",
        _RATE_LIMIT,
        set_rate_limit,
        "Set a version's rate limit",
        _TAG,
        ("update_function",),
        body=UpdateRateLimit,
        status=204,
        is_deprecated=True,
    ),
    Route(
        "DELETE",
        _RATE_LIMIT,
        remove_rate_limit,
        "Take a version's rate limit away",
        _TAG,
        ("update_function",),
        status=204,
        is_deprecated=True,
    ),
)
