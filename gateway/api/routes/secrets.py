"""Secrets of a version: written here, never returned. Instances get them at their start.

Source: `docs/wire.md` §14.5.
"""

from collections.abc import Iterable
from dataclasses import replace

from gateway.api.access import find_owned, not_found
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.tokens import UpdateSecrets
from gateway.domain.compare_and_set import change_details
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import VersionDetails


async def update(api: Api, call: Call[UpdateSecrets, None]) -> None:
    """Set secrets of a version. Running instances keep the secrets that they started with."""
    await find_owned(api, call)
    values = {secret.name: secret.value for secret in call.body.secrets}
    # Values first: an instance must not see a name without a value.
    await api.secrets.update(call.account, call.function_id, call.version_id, values)
    if not await _add_names(api, call, values):
        # The version was deleted after the ownership check, and its secrets before this update.
        await api.secrets.delete(call.account, call.function_id, call.version_id)
        raise not_found(call.function_id, call.version_id)


async def _add_names(api: Api, call: Call[UpdateSecrets, None], names: Iterable[str]) -> bool:
    """Add names of secrets to the details of a version; return whether the version exists."""
    at = timestamp(api.clock())

    def add_names(details: VersionDetails) -> VersionDetails:
        known = tuple(dict.fromkeys((*details.secret_names, *names)))
        return replace(details, secret_names=known, updated_at=at)

    details = await change_details(call.store(api), call.function_id, call.version_id, add_names)
    return details is not None


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "PUT",
        "/v2/nvcf/secrets/functions/{functionId}/versions/{functionVersionId}",
        update,
        "Set secrets of a version",
        "secrets",
        ("update_secrets",),
        body=UpdateSecrets,
        status=204,
    ),
)
