"""Calls with an Idempotency-Key, through real programs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.polling_worker import PollingWorker, polling_worker
from tests.support.stack import Gateway, Stack, metrics, running_at_inference, runs_of, start
from tests.support.waiting import PATIENCE_S, until

PEXEC, EXEC = "/v2/nvcf/pexec", "/v2/nvcf/exec"
ASYNC = {"prefer": "respond-async"}


class Processes:
    """Two gateway processes over one store: the one that holds the first calls, and another."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self._settings = {"OBJECTS__FOLDER": str(folder), "QUEUE__LEASE_S": "30"}
        self.holder, self.other = self.gateway(), self.gateway()

    def gateway(self) -> Gateway:
        return self.stack.gateway(**self._settings)

    async def call(
        self, gateway: Gateway, kind: str, key: str = "k", seconds: int = 60, number: int = 1
    ) -> httpx.Response:
        """Make a call over the polling routes."""
        headers = {
            "authorization": gateway.headers["authorization"],
            "idempotency-key": key,
            "origin": "https://page",
        }
        body: dict[str, object] = {"a": number}
        if kind == EXEC:
            body = {"requestHeader": {"pollDurationSeconds": seconds}, "requestBody": body}
        else:
            headers["nvcf-poll-seconds"] = str(seconds)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as client:
            path = f"{kind}/functions/{self.stack.demo.function_id}"
            return await client.post(path, json=body, headers=headers)

    async def is_stored(self, request_id: str) -> None:
        """Wait until the response of a call is where every process finds it."""

        async def state() -> str:
            async with self.other.client() as client:
                view = await client.get(f"/v2/requests/{request_id}")
            return str(view.json().get("state"))

        await until(state, lambda found: found == "done", what="a stored response")


@pytest.fixture
async def processes(stack: Stack, tmp_path: Path) -> Processes:
    return await asyncio.to_thread(Processes, stack, tmp_path)


@pytest.fixture
async def worker(stack: Stack) -> AsyncIterator[PollingWorker]:
    async with (
        asyncio.timeout(PATIENCE_S),
        polling_worker(stack.nats.url, stack.demo.version_id) as found,
    ):
        yield found


async def decisions(gateway: Gateway) -> dict[str, float]:
    """Return what became of the calls with keys at a process."""
    name = 'gateway_keyed_calls_total{decision="'
    found = await metrics(gateway.admin_url)
    return {
        key.removeprefix(name).removesuffix('"}'): count
        for key, count in found.items()
        if key.startswith(name) and count
    }


async def until_joined(gateway: Gateway, count: int) -> None:
    """Wait until so many calls have joined one of the process."""

    async def joined() -> float:
        return (await decisions(gateway)).get("join", 0)

    await until(joined, lambda found: found == count, what="calls that join")


async def test_a_repeated_call_gets_the_response_of_the_first(stack: Stack) -> None:
    gateway, agent = stack.gateway(), stack.agent()
    async with gateway.client() as client:
        first = await client.post("/echo", content=b"abc", headers={"idempotency-key": '"k"'})
        again = await client.post("/echo", content=b"abc", headers={"idempotency-key": "k"})
        other = await client.post("/echo", content=b"abd", headers={"idempotency-key": "k"})
        plain = await client.post("/echo", content=b"abc")
    assert (first.status_code, first.content) == (200, b"abc")
    assert (again.status_code, again.content) == (200, b"abc")
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" in again.headers["access-control-expose-headers"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["nvcf-reqid"] == first.headers["nvcf-reqid"]
    assert (other.status_code, other.json()["reason"]) == (422, "idempotency_key_reused")
    assert plain.headers["nvcf-reqid"] != first.headers["nvcf-reqid"]
    assert await runs_of(agent) == 2
    assert await decisions(gateway) == {"run": 1, "replay": 1, "refuse": 1}


async def test_a_repeated_head_has_the_length_of_the_first_at_every_process(
    processes: Processes,
) -> None:
    stack = processes.stack
    agent = await asyncio.to_thread(stack.agent)
    async with processes.holder.client() as client:
        headers = {"idempotency-key": "k"}
        first = await client.head("/missing", headers=headers)
        again = await client.head("/missing", headers=headers)
    length = first.headers["content-length"]
    assert int(length)
    await processes.is_stored(first.headers["nvcf-reqid"])
    found = [again]
    async with processes.other.client() as client:
        found.append(await client.head("/missing", headers=headers))
        processes.holder.program.process.kill()
        found.append(await client.head("/missing", headers=headers))
    for response in found:
        assert response.headers["idempotent-replayed"] == "true"
        assert response.headers["content-length"] == length
    assert await runs_of(agent) == 1


async def test_a_detached_call_is_repeated_at_another_process(processes: Processes) -> None:
    stack = processes.stack
    agent = await asyncio.to_thread(stack.agent)
    headers = {"idempotency-key": "k", **ASYNC}
    async with processes.holder.client() as here, processes.other.client() as there:
        first = await here.post("/slow?seconds=1", headers=headers)
        await running_at_inference(stack, 1)
        joined = await there.post("/slow?seconds=1", headers=headers)
        waited = await there.post("/slow?seconds=1", headers={"idempotency-key": "k"})
        replayed = await there.post("/slow?seconds=1", headers=headers)
        other = await there.post("/slow?seconds=2", headers=headers)
        response = await there.get(first.headers["location"] + "/response")
    assert [first.status_code, joined.status_code, replayed.status_code] == [202, 202, 202]
    for again in (joined, replayed):
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["preference-applied"] == "respond-async"
        assert again.headers["idempotent-replayed"] == "true"
    assert waited.headers["nvcf-reqid"] == first.headers["nvcf-reqid"]
    assert waited.content == response.content
    assert other.status_code == 422
    assert await runs_of(agent) == 1


@pytest.mark.parametrize("kind", [PEXEC, EXEC])
async def test_a_repeated_call_over_the_polling_routes_gets_what_a_poll_gets(
    processes: Processes, worker: PollingWorker, kind: str
) -> None:
    holder, other = processes.holder, processes.other
    first = await processes.call(holder, kind, seconds=1)
    request_id = first.headers["nvcf-reqid"]
    assert "idempotent-replayed" not in first.headers
    pending = await processes.call(other, kind, '"k"', seconds=1)
    for response in (first, pending):
        assert response.status_code == 202
        assert response.headers["nvcf-reqid"] == request_id
        assert response.headers.get("location") == first.headers.get("location")
        assert response.content == first.content
    assert pending.headers["idempotent-replayed"] == "true"
    waiting = [start(processes.call(gateway, kind)) for gateway in (holder, other)]
    lease, envelope = await worker.take()
    assert dict(envelope.headers)[b"idempotency-key"] == b"k"
    await until_joined(holder, 3)
    assert (await worker.respond(envelope, 200, b'{"b":2}')).status_code == 200
    lease.ack()
    found = [await one for one in waiting]
    await processes.is_stored(request_id)
    found += [await processes.call(gateway, kind, seconds=7) for gateway in (holder, other)]
    for response in found:
        assert response.status_code == 200
        body = response.json()
        assert (body if kind == PEXEC else body["response"]) == {"b": 2}
        assert response.headers["nvcf-reqid"] == request_id
        assert response.headers["idempotent-replayed"] == "true"
        assert response.headers["access-control-allow-origin"] == "*"
    reused = [await processes.call(gateway, kind, number=2) for gateway in (holder, other)]
    reused.append(await processes.call(other, EXEC if kind == PEXEC else PEXEC))
    for response in reused:
        assert (response.status_code, response.json()["reason"]) == (422, "idempotency_key_reused")
        assert response.headers["access-control-allow-origin"] == "*"
    counted = await decisions(holder)
    # Who refuses depends on whether the first request was complete when it claimed its key.
    refused = counted.pop("refuse") + (await decisions(other)).get("refuse", 0)
    assert (counted, refused) == ({"run": 1, "join": 3, "replay": 2}, 3)
    holder.program.process.kill()
    kept = await processes.call(other, kind)
    assert kept.json() == found[0].json()
    assert kept.headers["nvcf-reqid"] == request_id


async def test_a_polled_call_whose_holder_is_killed_is_never_run_again(
    processes: Processes, worker: PollingWorker
) -> None:
    first = await processes.call(processes.holder, PEXEC, seconds=1)
    waiting = start(processes.call(processes.other, EXEC, "other", seconds=1))
    lease, _ = await worker.take()
    assert lease.request_id == first.headers["nvcf-reqid"]
    processes.holder.program.process.kill()
    lost = await processes.call(processes.other, PEXEC)
    assert (lost.status_code, lost.json()["reason"]) == (502, "outcome_unknown")
    assert lost.json()["firstRequestId"] == lease.request_id
    assert (await waiting).status_code == 202
    second, _ = await worker.take()
    assert second.request_id == (await waiting).headers["nvcf-reqid"]
    assert await decisions(processes.other) == {"run": 1, "unknown": 1}


async def test_a_polled_call_with_a_key_is_there_for_a_client_whose_connection_broke(
    processes: Processes, worker: PollingWorker
) -> None:
    first = start(processes.call(processes.holder, PEXEC))
    lease, envelope = await worker.take()
    first.cancel()
    await asyncio.wait([first])
    again = start(processes.call(processes.other, PEXEC))
    await until_joined(processes.holder, 1)
    await worker.respond(envelope, 200, b"[]")
    lease.ack()
    assert (await again).content == b"[]"
    assert (await again).headers["nvcf-reqid"] == lease.request_id
