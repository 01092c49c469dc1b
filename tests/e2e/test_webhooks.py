"""Webhooks of detached calls, through whole programs that are killed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stack import Stack, running_at_inference
from tests.support.waiting import until
from tests.support.webhooks import webhook_receiver

ASYNC = {"prefer": "respond-async"}


async def shown(
    client: httpx.AsyncClient, request_id: str, accept: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Wait until a request is shown so."""

    async def look() -> dict[str, Any]:
        view: dict[str, Any] = (await client.get(f"/v2/requests/{request_id}")).json()
        return view

    return await until(look, accept)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "ROLES": "invocation,api",
        "CONTROL__SECRETS_KEY_FILE": str(tmp_path / "master.key"),
        "OBJECTS__FOLDER": str(tmp_path / "objects"),
        "WEBHOOKS__ALLOW_HTTP": "true",
        "WEBHOOKS__PRIVATE_NETWORKS": json.dumps(["127.0.0.0/8"]),
    }


async def test_a_webhook_outlives_the_process_that_held_its_call(
    stack: Stack, settings: dict[str, str]
) -> None:
    """The first process has no master key: it stores the webhook, and dies."""
    first = stack.gateway(**{**settings, "ROLES": "invocation"})
    stack.agent()
    async with webhook_receiver() as receiver:
        async with first.client() as client:
            refused = await client.get(
                "/slow?seconds=0", headers={**ASYNC, "nvcf-webhook-url": "https://10.0.0.1/"}
            )
            assert refused.status_code == 400
            assert "NVCF-Webhook-URL" in refused.json()["detail"]
            accepted = await client.get(
                "/slow?seconds=0", headers={**ASYNC, "nvcf-webhook-url": receiver.url}
            )
            assert accepted.status_code == 202
            request_id = accepted.headers["nvcf-reqid"]
            pending = await shown(client, request_id, lambda view: view["state"] == "done")
            assert pending["webhook"]["state"] == "pending"
        first.program.send(signal.SIGKILL)
        first.program.wait_end()
        assert receiver.received == []
        second = stack.gateway(**settings)
        got = await receiver.wait(1)
        assert got.headers["webhook-id"] == f"msg_{request_id}"
        assert (got.event["type"], got.event["data"]["state"]) == ("request.done", "done")
        assert "webhook" not in got.event["data"]
        async with second.client() as client:
            told = {"state": "delivered", "attempts": 1, "lastStatus": 204}
            await shown(client, request_id, lambda view: view["webhook"] == told)
            response = await client.get(got.event["data"]["responseUrl"])
            assert response.status_code == 200


async def test_failed_and_cancelled_calls_are_told_and_attached_ones_have_no_webhook(
    stack: Stack, settings: dict[str, str]
) -> None:
    gateway = stack.gateway(**settings)
    stack.agent()
    async with webhook_receiver() as receiver, gateway.client() as client:
        hook = {"nvcf-webhook-url": receiver.url}
        attached = await client.get("/slow?seconds=0", headers=hook)
        assert attached.status_code == 400
        assert "Prefer: respond-async" in attached.json()["detail"]
        late = await client.get(
            "/slow?seconds=60", headers={**ASYNC, **hook, "cancel-after": "run=1"}
        )
        assert (await receiver.wait(1)).event["type"] == "request.failed"
        data = receiver.received[0].event["data"]
        assert data["requestId"] == late.headers["nvcf-reqid"]
        assert data["problem"]["reason"] == "run_timeout"
        keyed = {**ASYNC, **hook, "idempotency-key": "k"}
        for _ in range(2):
            repeated = await client.get("/slow?seconds=0", headers=keyed)
            assert repeated.status_code == 202
        done = (await receiver.wait(2)).event
        assert done["data"]["requestId"] == repeated.headers["nvcf-reqid"]
        left = await client.get("/slow?seconds=60", headers={**ASYNC, **hook})
        await running_at_inference(stack, 1)
        deleted = await client.delete(f"/v2/requests/{left.headers['nvcf-reqid']}")
        assert deleted.status_code == 204
        assert (await receiver.wait(3)).event["type"] == "request.cancelled"
        await running_at_inference(stack, 0)
