"""Puts webhooks into the store, where a process with the role ``api`` finds them.

A process that holds calls makes no connection to receivers itself: it has no master key to sign
with, and need not reach the Internet. It waits until the webhook of a call is stored before it says
that the call is over, so that its death loses none.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from gateway.domain.documents import RecordError
from gateway.errors import Conflict, StoreUnavailable
from gateway.webhooks.addresses import WebhookRules
from gateway.webhooks.records import BUCKET, Documents, WebhookDelivery, body_of, decode
from runtime.events import emit
from runtime.metrics import MetricRegistry

RETRIES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Delays between the attempts to store a webhook."""

_log = logging.getLogger("gateway.webhooks")


class WebhookOutbox:
    """The webhooks of the calls of one process. ``rules`` check the URLs that callers name."""

    def __init__(
        self,
        store: Documents,
        rules: WebhookRules,
        registry: MetricRegistry,
        clock: Callable[[], float],
    ) -> None:
        """``clock`` returns Unix seconds."""
        self.rules = rules
        self._store = store
        self._clock = clock
        self._lost = registry.counter(
            "gateway_webhooks_lost_total", "Webhooks that could not be stored"
        ).child()

    async def keep(
        self, request_id: str, account: str, url: str, kind: str, view: Mapping[str, object]
    ) -> bool:
        """Store the webhook of a call that has ended as ``kind``, before anybody is told.

        ``view`` is that of ``GET /v2/requests/{id}``, ``kind`` one of `records.KINDS`. Returns
        whether it is stored; it is not if the store cannot be reached for `RETRIES_S` together.
        """
        now = self._clock()
        body = body_of(kind, request_id, view, now)
        data = WebhookDelivery(account, url, body, now, now).encode()
        for delay_s in (*RETRIES_S, None):
            try:
                await self._store.put_raw(BUCKET, request_id, data, 0)
            except Conflict:
                # Stored by an attempt whose reply was lost.
                return True
            except StoreUnavailable as error:
                if delay_s is None:
                    self._lost.value += 1
                    fields = {"request_id": request_id, "error": str(error)}
                    emit(_log, "webhook.lost", logging.ERROR, **fields)
                    return False
                await asyncio.sleep(delay_s)
            else:
                return True
        return False

    async def view(self, request_id: str) -> dict[str, object]:
        """Return what is shown of the webhook of a call that has ended.

        Raises `StoreUnavailable`. The state is ``unknown`` if it has ended long ago.
        """
        found = await self._store.get_raw(BUCKET, request_id)
        try:
            return {"state": "unknown"} if found is None else decode(found[0]).view()
        except RecordError:
            return {"state": "unknown"}
