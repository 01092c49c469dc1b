"""Secrets of a version: set, never shown (§2). Instances get them when they start."""

from collections.abc import Iterable
from dataclasses import replace

from gateway.api.access import not_found, owned
from gateway.api.compare_and_set import change_details
from gateway.api.identity import Identity
from gateway.api.route import AnyRoute, Api, Call, Route
from gateway.api.schemas.tokens import UpdateSecrets
from gateway.api.secrets.secret_store import Vault
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import VersionDetails

SCOPE = "update_secrets"


class SecretRoutes:
    """The handlers."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def update(self, api: Api, call: Call[UpdateSecrets, None]) -> None:
        """Set secrets of a version. Instances that run keep what they started with."""
        await owned(api, call)
        values = {secret.name: secret.value for secret in call.body.secrets}
        # Values first: a name without a value is what an instance would miss.
        await self._vault.update(call.account, call.function_id, call.version_id, values)
        if not await _add_names(api, call, values):
            # Deleted meanwhile, with the secrets that it had.
            await self._vault.delete(call.account, call.function_id, call.version_id)
            raise not_found(call.function_id, call.version_id)


async def _add_names(api: Api, call: Call[UpdateSecrets, None], names: Iterable[str]) -> bool:
    """Name the secrets of a version; return whether it is there."""
    at = timestamp(api.clock())

    def named(details: VersionDetails) -> VersionDetails:
        known = tuple(dict.fromkeys((*details.secret_names, *names)))
        return replace(details, secret_names=known, updated_at=at)

    return await change_details(call.own(api), call.function_id, call.version_id, named) is not None


def routes(identity: Identity) -> tuple[AnyRoute, ...]:
    """Return the route about secrets."""
    return (
        Route(
            "PUT",
            "/v2/nvcf/secrets/functions/{functionId}/versions/{functionVersionId}",
            SecretRoutes(identity.vault).update,
            "Set secrets of a version",
            "secrets",
            (SCOPE,),
            body=UpdateSecrets,
            status=204,
        ),
    )
