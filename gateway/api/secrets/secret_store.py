"""Secrets of function versions: sealed in the store, opened only for the version's instances.

Implements `gateway.api.route.SecretVault`. The values of a version are one sealed JSON object,
bound to account, function and version: moved to another place in the store it does not open.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import orjson

from gateway.api.compare_and_set import ATTEMPTS
from gateway.auth.sealing import NONCE_BYTES, SecretBox
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Removed, Secrets, SecretsRemoved, VersionDetails
from gateway.errors import BadRequest, Conflict
from wire.ids import FunctionId, VersionId

MAX_BYTES = 524_288
"""All values of a version together, as JSON: what NATS takes in one message, and some room."""


class SecretStore(Protocol):
    """One account's sealed secrets (`gateway.store.account_store.AccountStore`)."""

    async def secrets(self, function_id: str, version_id: str) -> tuple[Secrets, int] | None: ...

    async def put(self, record: Secrets, revision: int) -> int: ...

    async def delete(self, name: Removed, revision: int) -> None: ...


class SecretStores(Protocol):
    """All of them, each through its account."""

    def of(self, account: str) -> SecretStore: ...


class Vault:
    """Seals on the way in, opens on the way out. May raise `StoreUnavailable` and `SealError`."""

    def __init__(
        self,
        stores: SecretStores,
        sealer: SecretBox,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        """``clock`` gives Unix seconds, ``random`` so many random bytes."""
        self._stores = stores
        self._sealer = sealer
        self._clock = clock
        self._random = random

    async def put(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        """Keep ``values`` by name, in place of what was kept for the version.

        Raises `BadRequest` for more than `MAX_BYTES`.
        """
        await self._change(account, function_id, version_id, lambda _: values)

    async def update(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        """Keep ``values`` by name, and what was kept under other names. Raises as `put`."""
        await self._change(account, function_id, version_id, lambda kept: {**kept, **values})

    async def delete(self, account: str, function_id: str, version_id: str) -> None:
        """Forget a version's secrets; no error if there are none."""
        store = self._stores.of(account)
        for _ in range(ATTEMPTS):
            found = await store.secrets(function_id, version_id)
            if found is None:
                return
            try:
                await store.delete(SecretsRemoved(function_id, version_id), found[1])
            except Conflict:
                continue
            return
        raise Conflict

    async def of_version(self, details: VersionDetails) -> Mapping[str, str]:
        """Return the secrets of a version as its instances get them: texts, JSON as it is written.

        Implements `gateway.provision.executor.SecretsOf`.
        """
        if not details.secret_names:
            return {}
        found = await self._stores.of(details.account).secrets(
            details.function_id, details.version_id
        )
        values = {} if found is None else self._opened(found[0])
        return {
            name: value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in values.items()
            if name in details.secret_names
        }

    async def _change(
        self,
        account: str,
        function_id: str,
        version_id: str,
        change: Callable[[Mapping[str, object]], Mapping[str, object]],
    ) -> None:
        store = self._stores.of(account)
        for _ in range(ATTEMPTS):
            found = await store.secrets(function_id, version_id)
            kept = {} if found is None else self._opened(found[0])
            record = self._sealed(account, function_id, version_id, change(kept))
            try:
                await store.put(record, 0 if found is None else found[1])
            except Conflict:
                continue
            return
        raise Conflict

    def _sealed(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> Secrets:
        text = orjson.dumps(dict(values))
        if len(text) > MAX_BYTES:
            raise BadRequest(f"The secrets of a version have at most {MAX_BYTES} bytes together")
        place = _place(account, function_id, version_id)
        return Secrets(
            FunctionId(function_id),
            VersionId(version_id),
            account,
            self._sealer.seal(text, place, self._random(NONCE_BYTES)),
            timestamp(self._clock()),
        )

    def _opened(self, secrets: Secrets) -> Mapping[str, object]:
        place = _place(secrets.account, secrets.function_id, secrets.version_id)
        values: Mapping[str, object] = orjson.loads(self._sealer.open(secrets.sealed, place))
        return values


def _place(account: str, function_id: str, version_id: str) -> str:
    return orjson.dumps([account, function_id, version_id]).decode()
