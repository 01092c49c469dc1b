"""The parts that deliver webhooks, in processes with the role ``api``."""

import random
import time
from contextlib import AsyncExitStack

from gateway.app.options import webhook_rules
from gateway.settings import GatewaySettings
from gateway.store.follower import BucketFollower
from gateway.store.names import WEBHOOKS
from gateway.store.records import Store
from gateway.webhooks.deliverer import TICK_S, WebhookClocks, WebhookDeliverer
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.sender import WebhookSender
from runtime.ids import new_uuid
from runtime.lifecycle import Ticker
from runtime.metrics import MetricRegistry


class WebhookParts:
    """The deliverer, and what keeps it going."""

    def __init__(self, settings: GatewaySettings, store: Store, secrets: WebhookSecrets) -> None:
        self._deliverer = WebhookDeliverer(
            store,
            secrets,
            WebhookSender(webhook_rules(settings.webhooks)),
            WebhookClocks(time.time, time.monotonic, random.random),
            new_uuid(),
            settings.requests.retention_s,
        )
        self._follower = BucketFollower(WEBHOOKS, store, self._deliverer, lambda: None)

    def show_state(self, registry: MetricRegistry) -> None:
        """Declare the metrics."""
        self._deliverer.show_state(registry)

    def start(self, stack: AsyncExitStack) -> None:
        """Deliver for the life of ``stack``; the store is open."""
        ticker = Ticker(TICK_S, self._deliverer.tick)
        self._follower.start()
        ticker.start()
        stack.push_async_callback(self._deliverer.stop)
        stack.callback(ticker.stop)
        stack.push_async_callback(self._follower.stop)
