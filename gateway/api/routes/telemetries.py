"""Telemetry endpoints, to which instances send logs, metrics and traces (`docs/wire.md` §14.6).

Instances get them at their start. Secrets are never returned.
"""

import asyncio

from gateway.api.route import BATCH, AnyRoute, Api, Call, Route
from gateway.api.schemas.telemetries import (
    CreateTelemetry,
    TelemetriesResponse,
    TelemetryResponse,
    TelemetryView,
    UpdateTelemetrySecret,
)
from gateway.domain.catalog import Visibility
from gateway.domain.lifecycle import label, timestamp
from gateway.domain.model import FunctionVersion
from gateway.domain.telemetry_endpoint import (
    MAX_ENDPOINTS,
    TelemetryEndpoint,
    add_endpoint,
    check_endpoint,
    endpoint_ids,
    find_endpoint,
    remove_endpoint,
    set_endpoint_secret,
)
from gateway.errors import BadRequest


async def create(api: Api, call: Call[CreateTelemetry, None]) -> TelemetryResponse:
    """Create a telemetry endpoint."""
    body = call.body
    new = TelemetryEndpoint(
        endpoint_id=api.new_id(),
        name=body.secret.name,
        url=body.endpoint,
        protocol=body.protocol,
        provider=body.provider,
        types=tuple(body.types),
        created_at=timestamp(api.clock()),
        secret=body.secret.value,
    )
    check_endpoint(new)
    account = api.catalog.model.account(call.account)
    limit = account.max_telemetries if account is not None else MAX_ENDPOINTS
    await api.telemetry_endpoints.change(
        call.account, lambda known: add_endpoint(known, new, limit)
    )
    return TelemetryResponse(telemetry=_view(new))


async def list_telemetries(api: Api, call: Call[None, None]) -> TelemetriesResponse:
    """List the telemetry endpoints of the account."""
    found = await api.telemetry_endpoints.of(call.account)
    return TelemetriesResponse(telemetries=[_view(one) for one in found])


async def get(api: Api, call: Call[None, None]) -> TelemetryResponse:
    """Get a telemetry endpoint."""
    found = await api.telemetry_endpoints.of(call.account)
    return TelemetryResponse(telemetry=_view(find_endpoint(found, call.variable("telemetryId"))))


async def delete(api: Api, call: Call[None, None]) -> None:
    """Delete a telemetry endpoint that no version names."""
    endpoint_id = call.variable("telemetryId")
    find_endpoint(await api.telemetry_endpoints.of(call.account), endpoint_id)
    await call.store(api).show_versions()
    version = await _find_user(api, call.account, endpoint_id)
    if version is not None:
        raise BadRequest(f"{label(version)}: sends to this telemetry; delete the version first")
    await api.telemetry_endpoints.change(
        call.account, lambda known: remove_endpoint(known, endpoint_id)
    )


async def update_secret(api: Api, call: Call[UpdateTelemetrySecret, None]) -> None:
    """Set the secret of a telemetry endpoint. Running instances keep the one before."""
    endpoint_id, secret = call.variable("telemetryId"), call.body.secret
    await api.telemetry_endpoints.change(
        call.account,
        lambda known: set_endpoint_secret(known, endpoint_id, secret.name, secret.value),
    )


async def _find_user(api: Api, account: str, endpoint_id: str) -> FunctionVersion | None:
    """Return a version that names the endpoint."""
    versions = api.catalog.versions(account, Visibility.PRIVATE)
    for count, (_, version) in enumerate(versions):
        if count % BATCH == BATCH - 1:
            await asyncio.sleep(0)
        details = api.catalog.details(version.function_id, version.version_id)
        if details is not None and endpoint_id in endpoint_ids(details.spec).values():
            return version
    return None


def _view(endpoint: TelemetryEndpoint) -> TelemetryView:
    return TelemetryView(
        telemetry_id=endpoint.endpoint_id,
        name=endpoint.name,
        endpoint=endpoint.url,
        protocol=endpoint.protocol,
        provider=endpoint.provider,
        types=list(endpoint.types),
        created_at=endpoint.created_at,
    )


_ALL = "/v2/nvcf/telemetries"
_ONE = f"{_ALL}/{{telemetryId}}"
_TAG = "telemetries"
_SCOPES = ("manage_telemetries",)

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        _ALL,
        create,
        "Create a telemetry endpoint",
        _TAG,
        _SCOPES,
        TelemetryResponse,
        CreateTelemetry,
    ),
    Route(
        "GET",
        _ALL,
        list_telemetries,
        "List telemetry endpoints",
        _TAG,
        _SCOPES,
        TelemetriesResponse,
    ),
    Route("GET", _ONE, get, "Get a telemetry endpoint", _TAG, _SCOPES, TelemetryResponse),
    Route("DELETE", _ONE, delete, "Delete a telemetry endpoint", _TAG, _SCOPES, status=204),
    Route(
        "PUT",
        "/v2/nvcf/secrets/telemetries/{telemetryId}",
        update_secret,
        "Set the secret of a telemetry endpoint",
        _TAG,
        ("update_secrets",),
        body=UpdateTelemetrySecret,
        status=204,
    ),
)
