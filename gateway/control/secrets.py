"""Secrets of a version: set, never shown (§2). Instances get them when they start."""

from collections.abc import Iterable
from dataclasses import replace

from gateway.control.access import owned
from gateway.control.api import AnyRoute, Api, Call, Route
from gateway.control.dto.tokens import UpdateSecrets
from gateway.control.identity import Identity
from gateway.control.vault import Vault
from gateway.errors import Conflict
from gateway.functions.lifecycle import timestamp

SCOPE = "update_secrets"
_ATTEMPTS = 8


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
        await _add_names(api, call, values)


async def _add_names(api: Api, call: Call[UpdateSecrets, None], names: Iterable[str]) -> None:
    store = call.own(api)
    for _ in range(_ATTEMPTS):
        found = await store.details(call.function_id, call.version_id)
        if found is None:
            raise Conflict
        details, revision = found
        known = tuple(dict.fromkeys((*details.secret_names, *names)))
        changed = replace(details, secret_names=known, updated_at=timestamp(api.clock()))
        try:
            await store.put(changed, revision)
        except Conflict:
            continue
        return
    raise Conflict


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
