"""Webhooks on their way into the store."""

import pytest

from gateway.webhooks import outbox
from gateway.webhooks.addresses import WebhookRules
from gateway.webhooks.outbox import WebhookOutbox
from runtime.metrics import MetricRegistry
from tests.support.memory_documents import MemoryDocuments

ID = "33333333-3333-4333-8333-333333330007"
URL = "https://example.com/"


async def test_a_webhook_is_stored_once_and_shown() -> None:
    store, registry = MemoryDocuments(), MetricRegistry(with_process=False)
    box = WebhookOutbox(store, WebhookRules(), registry, lambda: 1000.0)
    assert await box.view(ID) == {"state": "unknown"}
    assert await box.keep(ID, "acme", URL, "done", {"requestId": ID})
    stored = await store.get_raw("webhooks", ID)
    assert await box.keep(ID, "acme", URL, "failed", {"requestId": ID})
    assert await store.get_raw("webhooks", ID) == stored
    assert (await box.view(ID))["state"] == "pending"


async def test_one_that_the_store_does_not_take_is_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "RETRIES_S", (0.0, 0.0))
    store, registry = MemoryDocuments(), MetricRegistry(with_process=False)
    store.is_away = True
    box = WebhookOutbox(store, WebhookRules(), registry, lambda: 1000.0)
    assert not await box.keep(ID, "acme", URL, "done", {"requestId": ID})
    assert "gateway_webhooks_lost_total 1" in registry.exposition().decode()
