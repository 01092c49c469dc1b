"""Secrets of function versions: sealed in the store, opened only for the version's instances.

Implements `gateway.api.route.SecretStore`. The values of a version are one sealed JSON object,
bound to account, function and version: under another key of the store it does not open.
"""

from collections.abc import Callable, Mapping

import orjson

from gateway.auth.sealing import NONCE_BYTES, SecretBox
from gateway.domain.compare_and_set import compare_and_set, delete_record
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import Secrets, VersionDetails
from gateway.domain.ports import AccountStores
from gateway.errors import BadRequest
from wire.ids import FunctionId, VersionId

MAX_BYTES = 524_288
"""Maximum bytes of all values of a version, as JSON: NATS's limit of a message, with a margin."""


class SecretStore:
    """Seals values on write, opens them on read.

    Every method may raise `gateway.errors.StoreUnavailable` and `gateway.auth.sealing.SealError`.
    """

    def __init__(
        self,
        stores: AccountStores,
        sealer: SecretBox,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        """``clock`` returns Unix seconds, ``random`` the given number of random bytes."""
        self._stores = stores
        self._sealer = sealer
        self._clock = clock
        self._random = random

    async def put(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        """Store ``values`` by name, in place of all secrets of the version.

        Raises `BadRequest` for more than `MAX_BYTES`.
        """
        await self._change(account, function_id, version_id, lambda _: values)

    async def update(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        """Store ``values`` by name; secrets with other names stay. Raises as `put`."""
        await self._change(account, function_id, version_id, lambda stored: {**stored, **values})

    async def delete(self, account: str, function_id: str, version_id: str) -> None:
        """Delete the secrets of a version, if it has any."""
        store = self._stores.of(account)
        await delete_record(store, lambda: store.secrets(function_id, version_id))

    async def of_version(self, details: VersionDetails) -> Mapping[str, str]:
        """Return the secrets of a version as its instances get them: strings, others as JSON.

        Implements `gateway.provision.executor.SecretsOf`.
        """
        if not details.secret_names:
            return {}
        found = await self._stores.of(details.account).secrets(
            details.function_id, details.version_id
        )
        values = {} if found is None else self._open(found[0])
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

        async def read() -> tuple[Secrets | None, int]:
            return await store.secrets(function_id, version_id) or (None, 0)

        def seal(stored: Secrets | None) -> Secrets:
            values = {} if stored is None else self._open(stored)
            return self._seal(account, function_id, version_id, change(values))

        await compare_and_set(read, seal, store.put)

    def _seal(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> Secrets:
        text = orjson.dumps(dict(values))
        if len(text) > MAX_BYTES:
            raise BadRequest(f"The secrets of a version have at most {MAX_BYTES} bytes together")
        context = _context(account, function_id, version_id)
        return Secrets(
            FunctionId(function_id),
            VersionId(version_id),
            account,
            self._sealer.seal(text, context, self._random(NONCE_BYTES)),
            timestamp(self._clock()),
        )

    def _open(self, secrets: Secrets) -> Mapping[str, object]:
        context = _context(secrets.account, secrets.function_id, secrets.version_id)
        values: Mapping[str, object] = orjson.loads(self._sealer.open(secrets.sealed, context))
        return values


def _context(account: str, function_id: str, version_id: str) -> str:
    """Return the additional authenticated data that binds a sealed text to its version."""
    return orjson.dumps([account, function_id, version_id]).decode()
