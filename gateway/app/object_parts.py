"""The object store of one process, and what depends on it."""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from gateway.app.options import asset_limits, object_options
from gateway.dispatch.object_endpoint import ObjectEndpoint, OnTransfer
from gateway.errors import StoreUnavailable
from gateway.objects.assets import PREFIX, Assets
from gateway.objects.large_responses import PREFIX as LARGE_PREFIX
from gateway.objects.large_responses import LargeResponseObjects
from gateway.objects.open import make_object_store
from gateway.objects.references import resolve_references
from gateway.objects.signed_urls import SharedKey, UrlSigner
from gateway.objects.sweep import Lifetime, Sweep, SweepTurns
from gateway.requests.stored import PREFIX as RESPONSES_PREFIX
from gateway.settings import GatewaySettings
from gateway.store.names import META
from gateway.store.records import Store
from runtime.events import emit
from runtime.ids import new_uuid
from runtime.tasks import spawn
from wire.envelope import encode_assets

KEY_NAME = "objects.key"
SWEEP_NAME = "objects.sweep"
"""Names of the documents in the store."""

_log = logging.getLogger("gateway.objects")


class ObjectParts:
    """``store`` is the object store, ``assets`` and ``large_responses`` are what is in it."""

    def __init__(self, settings: GatewaySettings, store: Store) -> None:
        key = SharedKey(
            lambda: store.get_raw(META, KEY_NAME),
            lambda data: store.put_raw(META, KEY_NAME, data, 0),
            os.urandom,
        )
        self._is_local = settings.objects.backend == "local"
        self._signer = UrlSigner(key, time.time, settings.objects.url)
        self.store = make_object_store(object_options(settings.objects), self._signer)
        self.assets = Assets(self.store, asset_limits(settings.assets), time.time, new_uuid)
        turns = SweepTurns(
            lambda: store.get_raw(META, SWEEP_NAME),
            lambda data, revision: store.put_raw(META, SWEEP_NAME, data, revision),
        )
        requests = settings.requests
        self.large_responses = LargeResponseObjects(
            self.store,
            max_bytes=requests.max_response_bytes,
            lifetime_s=requests.retention_s,
            clock=time.time,
        )
        lifetimes = [
            Lifetime(PREFIX, settings.assets.lifetime_s),
            Lifetime(LARGE_PREFIX, requests.retention_s),
            Lifetime(RESPONSES_PREFIX, requests.retention_s),
        ]
        self._sweep = Sweep(self.store, lifetimes, turns, time.time)

    def endpoint(self, on_response: OnTransfer) -> ObjectEndpoint | None:
        """Return what serves the signed URLs on one listener.

        `None` if the backend's own server does.
        """
        if not self._is_local:
            return None
        return ObjectEndpoint(self.store, self._signer, self.assets.room, on_response)

    async def find_assets(self, attach_url: str, account: str, asset_ids: Sequence[str]) -> bytes:
        """Return the input assets of a call as fields of its envelope.

        ``attach_url`` is where the workers of this process's calls reach it. Raises as
        `gateway.objects.references.resolve_references`.
        """
        found = await resolve_references(self.assets, account, asset_ids, attach_url)
        return encode_assets(found)

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the store and sweep it, for the life of ``stack``.

        A store that is not there is no reason not to start: calls need none.
        """
        stack.push_async_callback(self.store.close)
        try:
            await self.store.open()
        except StoreUnavailable as error:
            emit(_log, "objects.unavailable", logging.ERROR, error=str(error))
        sweeping = spawn(self._sweep.run(), "objects.sweep")
        stack.callback(sweeping.cancel)
