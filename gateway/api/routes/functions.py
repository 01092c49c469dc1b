"""Register, get, update and delete functions and versions (`docs/wire.md` §10)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import orjson

from gateway.api.access import (
    DETAILS,
    LIST,
    AnyCall,
    find_owned,
    find_owned_function,
    find_visible,
    not_found,
    refuse_public,
)
from gateway.api.removal import decide, delete_rest
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.function_views import FunctionResponse
from gateway.api.schemas.functions import (
    CreateFunction,
    DetailsQuery,
    UpdateMetadata,
    UpdateRateLimit,
)
from gateway.api.serializers import function_view, instance_views
from gateway.domain.compare_and_set import change_details, change_version, delete_record
from gateway.domain.cors import PagePolicy, page_policy_of
from gateway.domain.deployment import VersionDetails
from gateway.domain.lifecycle import check_family, register_records, timestamp
from gateway.domain.model import Function, FunctionVersion
from gateway.domain.rate_limit import policy_of
from gateway.domain.readmodel import FunctionEntry
from gateway.domain.telemetry_endpoint import check_version
from gateway.errors import BadRequest, Forbidden
from wire.ids import FunctionId, VersionId

MAX_SPEC_BYTES = 917_504
"""Maximum bytes of the details of a version, as JSON: NATS's limit of a message, with a margin."""


async def create(api: Api, call: Call[CreateFunction, None]) -> FunctionResponse:
    """Register a function with its first version."""
    if not call.principal.reach.own:
        raise Forbidden("The credential is valid for some functions only, not for new ones")
    await _check(api, call)
    function_id, store = FunctionId(api.new_id()), call.store(api)
    async with api.quotas.reserve(store, api.catalog, function_id, api.clock()):
        await store.put(Function(function_id, call.account), 0)
        return await _register(api, call, function_id)


async def create_version(api: Api, call: Call[CreateFunction, None]) -> FunctionResponse:
    """Register another version of a function."""
    entry = await _own_entry(api, call)
    refuse_public(entry)
    kinds = []
    for version in entry.versions.values():
        details = await _details(api, call, version)
        if details is not None:
            kinds.append(str(details.spec.get("functionType")))
    check_family(kinds, call.body.function_type or "DEFAULT")
    await _check(api, call)
    return await _register(api, call, FunctionId(call.function_id))


async def get(api: Api, call: Call[None, DetailsQuery]) -> FunctionResponse:
    """Get a version, for its owner with its instances."""
    version = (await find_visible(api, call)).version
    is_owner = version.account == call.account
    has_details = is_owner and DETAILS in call.principal.scopes
    details = await _details(api, call, version)
    instances = None
    if has_details:
        instances = instance_views(api.catalog.instances(version.version_id), api.clock())
    return FunctionResponse(
        function=function_view(
            version,
            details,
            is_owner=is_owner,
            with_secrets=has_details and call.query.include_secrets,
            instances=instances,
        )
    )


async def delete(api: Api, call: Call[None, None]) -> None:
    """Delete a version in any state, at once, with its queue and instances.

    The version's record is deleted first: without it, the others cannot be accessed, and the
    reconciler ends the deployment. So the call deletes the version or nothing.
    """
    version = await find_owned(api, call)
    store, function_id, version_id = call.store(api), call.function_id, call.version_id

    async def read_deleted() -> FunctionVersion | None:
        return version if await store.version(function_id, version_id) is None else None

    deleted = await decide(
        lambda: delete_record(store, lambda: store.version(function_id, version_id)),
        read_deleted,
        "nothing was deleted",
    )
    if deleted is None:
        raise not_found(function_id, version_id)

    async def delete_function() -> None:
        entry = api.catalog.function(function_id)
        if entry is None or not entry.versions:
            await delete_record(store, lambda: store.function(function_id))

    await delete_rest(
        version_id,
        lambda: delete_record(store, lambda: store.deployment(function_id, version_id)),
        lambda: delete_record(store, lambda: store.details(function_id, version_id)),
        lambda: api.secrets.delete(call.account, function_id, version_id),
        lambda: api.registrations.delete_of(call.account, version_id),
        delete_function,
    )


async def update(api: Api, call: Call[UpdateMetadata, None]) -> FunctionResponse:
    """Update tags, description, rate limit, LLM configuration or the origins of web pages."""
    version = await find_owned(api, call)
    details = await _change_spec(api, call, lambda spec: _apply_update(spec, call.body))
    if call.body.sets_rate_limit:
        await _apply_rate_limit(api, call)
    if call.body.cors is not None:
        version = await _set_page_policy(api, call, page_policy_of(details.spec))
    return FunctionResponse(function=function_view(version, details, is_owner=True))


async def update_metadata(api: Api, call: Call[UpdateMetadata, None]) -> FunctionResponse:
    """Update metadata, like PUT on the version."""
    return await update(api, call)


async def set_rate_limit(api: Api, call: Call[UpdateRateLimit, None]) -> None:
    """Set the rate limit of a version."""
    await find_owned(api, call)
    limit = call.body.rate_limit.model_dump(mode="json", by_alias=True, exclude_none=True)
    await _change_spec(api, call, lambda spec: {**spec, "rateLimit": limit})
    await _apply_rate_limit(api, call)


async def remove_rate_limit(api: Api, call: Call[None, None]) -> None:
    """Delete the rate limit of a version."""
    await find_owned(api, call)
    await _change_spec(api, call, _without_rate_limit)
    await _apply_rate_limit(api, call)


async def _change_spec(
    api: Api,
    call: AnyCall,
    change: Callable[[Mapping[str, object]], Mapping[str, object]],
) -> VersionDetails:
    """Change the spec of a version. ``change`` may be called several times."""
    at = timestamp(api.clock())

    def change_spec(details: VersionDetails) -> VersionDetails:
        spec = change(details.spec)
        if spec == details.spec:
            return details
        _check_size(spec)
        return replace(details, spec=spec, updated_at=at)

    details = await change_details(call.store(api), call.function_id, call.version_id, change_spec)
    if details is None:
        # The version was deleted after the ownership check.
        raise not_found(call.function_id, call.version_id)
    return details


async def _apply_rate_limit(api: Api, call: AnyCall) -> None:
    """Let the version have the rate limit of its details, whoever else changes them meanwhile."""
    store, function_id, version_id = call.store(api), call.function_id, call.version_id
    revision = 0
    while (found := await store.details(function_id, version_id)) and found[1] != revision:
        details, revision = found
        limited = partial(replace, rate_limit=policy_of(details.spec))
        await change_version(store, function_id, version_id, limited)


async def _set_page_policy(api: Api, call: AnyCall, policy: PagePolicy | None) -> FunctionVersion:
    version = await change_version(
        call.store(api),
        call.function_id,
        call.version_id,
        lambda version: replace(version, page_policy=policy),
    )
    if version is None:
        raise not_found(call.function_id, call.version_id)
    return version


def _without_rate_limit(spec: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in spec.items() if name != "rateLimit"}


def _apply_update(spec: Mapping[str, object], body: UpdateMetadata) -> Mapping[str, object]:
    changed = body.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"model_updates"}
    )
    kept = _without_rate_limit(spec) if body.sets_rate_limit else spec
    updated = {**kept, **changed}
    if body.cors is not None and not body.cors.origins:
        del updated["cors"]
    is_llm = spec.get("functionType") == "LLM"
    if not is_llm and (body.llm_invocation_config or body.model_updates):
        raise BadRequest("llmInvocationConfig and modelUpdates are for LLM functions")
    if body.model_updates:
        updates = {
            update.model_name: update.llm_config.model_dump(
                mode="json", by_alias=True, exclude_none=True
            )
            for update in body.model_updates
        }
        updated["models"] = _update_models(spec.get("models"), updates)
    return updated


async def _register(
    api: Api, call: Call[CreateFunction, None], function_id: FunctionId
) -> FunctionResponse:
    version_id = VersionId(api.new_id())
    secrets = {secret.name: secret.value for secret in call.body.secrets or ()}
    details, version = register_records(
        call.account, function_id, version_id, call.body.spec(), api.clock(), list(secrets)
    )
    if secrets:
        await api.secrets.put(call.account, function_id, version_id, secrets)
    store = call.store(api)
    await store.put(details, 0)
    await store.put(version, 0)
    return FunctionResponse(
        function=function_view(version, details, is_owner=True, with_secrets=True)
    )


async def _own_entry(api: Api, call: Call[CreateFunction, None]) -> FunctionEntry:
    """Return the caller's own function, from the store if the model does not show it yet."""
    if api.catalog.function(call.function_id) is None:
        found = await call.store(api).function(call.function_id)
        if found is not None and call.principal.reach.own:
            return FunctionEntry()
    return find_owned_function(api, call)


async def _check(api: Api, call: Call[CreateFunction, None]) -> None:
    """Raise `BadRequest`, before anything is written, for what the body's model cannot check."""
    spec = call.body.spec()
    if call.body.telemetries is not None:
        variables = [entry.key for entry in call.body.container_environment or ()]
        endpoints = await api.telemetry_endpoints.of(call.account)
        check_version(spec, endpoints, variables)
    _check_size(spec)


def _check_size(spec: Mapping[str, object]) -> None:
    if len(orjson.dumps(spec)) > MAX_SPEC_BYTES:
        raise BadRequest(f"A version has at most {MAX_SPEC_BYTES} bytes as JSON, without secrets")


def _update_models(models: object, updates: Mapping[str, object]) -> list[object]:
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
    """Return the details of a version, from the store if the catalog does not show them yet."""
    details = api.catalog.details(version.function_id, version.version_id)
    if details is None and version.account == call.account:
        found = await call.store(api).details(version.function_id, version.version_id)
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
        FunctionResponse,
        CreateFunction,
    ),
    Route(
        "POST",
        "/v2/nvcf/functions/{functionId}/versions",
        create_version,
        "Register another version of a function",
        _TAG,
        ("register_function",),
        FunctionResponse,
        CreateFunction,
    ),
    Route("GET", _VERSION, get, "Get a version", _TAG, LIST, FunctionResponse, query=DetailsQuery),
    Route("DELETE", _VERSION, delete, "Delete a version", _TAG, ("delete_function",), status=204),
    Route(
        "PUT",
        _VERSION,
        update,
        "Update the metadata of a version",
        _TAG,
        ("update_function",),
        FunctionResponse,
        UpdateMetadata,
    ),
    Route(
        "PUT",
        "/v2/nvcf/metadata/functions/{functionId}/versions/{functionVersionId}",
        update_metadata,
        "Update the metadata of a version",
        _TAG,
        ("update_function",),
        FunctionResponse,
        UpdateMetadata,
        is_deprecated=True,
    ),
    Route(
        "PUT",
        _RATE_LIMIT,
        set_rate_limit,
        "Set the rate limit of a version",
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
        "Delete the rate limit of a version",
        _TAG,
        ("update_function",),
        status=204,
        is_deprecated=True,
    ),
)
