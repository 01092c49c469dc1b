"""The /metrics of both programs, compared with the tables of `docs/wire.md` §17.

Metrics of features that do not exist are left out: other clients of the gateway (gRPC, HTTP, AWS),
assets, large responses, progress, sessions.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import httpx
import pytest

from tests.support.programs import Program
from tests.support.stack import Gateway, Stack, running_stack
from tests.support.waiting import until

EXCHANGE = {"method", "status", "endpoint"}
VERSION = {"function_id", "function_version_id"}

PROCESS = {
    "process_cpu_seconds_total": ("counter", set[str]()),
    "process_resident_memory_bytes": ("gauge", set[str]()),
    "process_virtual_memory_bytes": ("gauge", set[str]()),
    "process_start_time_seconds": ("gauge", set[str]()),
    "process_open_fds": ("gauge", set[str]()),
    "process_max_fds": ("gauge", set[str]()),
}
GATEWAY = PROCESS | {
    "axum_http_requests_total": ("counter", EXCHANGE),
    "axum_http_requests_duration_seconds": ("histogram", EXCHANGE),
    "axum_http_requests_pending": ("gauge", {"method", "endpoint"}),
    "axum_http_response_body_size": ("summary", EXCHANGE),
    "function_request": ("counter", VERSION | {"nca_id"}),
    "function_request_latency": ("histogram", VERSION),
    "app_invocation_error": ("counter", {"http_status_code", "function_id"}),
    "nats_in_bytes": ("counter", set[str]()),
    "nats_out_bytes": ("counter", set[str]()),
    "nats_in_messages": ("counter", set[str]()),
    "nats_out_messages": ("counter", set[str]()),
    "nats_connects": ("counter", set[str]()),
    "nats_jetstream_publish": ("counter", {"stream", "status"}),
    "total_nats_errors": ("counter", set[str]()),
    "nats_event_connected": ("counter", set[str]()),
    "nats_event_disconnected": ("counter", set[str]()),
    "nats_event_lameduck_mode": ("counter", set[str]()),
    "nats_event_slow_consumer": ("counter", set[str]()),
    "nats_event_server_error": ("counter", set[str]()),
    "nats_event_client_error": ("counter", set[str]()),
    "nats_slow_consumer_dropped_messages": ("counter", set[str]()),
    # Not in the table: histograms from 1 ms.
    "gateway_queue_wait_seconds": ("histogram", VERSION),
    "gateway_time_to_first_byte_seconds": ("histogram", VERSION),
    "gateway_invocation_seconds": ("histogram", VERSION),
    # Nor these: what operators need beside them (docs/operations.md).
    "gateway_build_info": ("gauge", {"version", "python"}),
    "gateway_refusals_total": ("counter", {"endpoint", "reason"}),
    "gateway_queue_depth": ("gauge", VERSION),
    "gateway_queue_oldest_wait_seconds": ("gauge", VERSION),
    "gateway_dispatched_total": ("counter", {"dispatch"}),
    "gateway_channels": ("gauge", set[str]()),
    "gateway_channel_refusals_total": ("counter", {"reason"}),
    "gateway_channel_losses_total": ("counter", set[str]()),
    "gateway_loop_turn_longest_seconds": ("gauge", set[str]()),
    "gateway_log_lines_dropped_total": ("counter", set[str]()),
}
_OF_WORKER: dict[str, tuple[str, set[str]]] = {
    "request_total": ("counter", set()),
    "response_total": ("counter", {"error_code"}),
    "response_bytes_total": ("counter", set()),
    "worker_thread_count_total": ("gauge", set()),
    "worker_thread_busy_seconds_total": ("counter", set()),
    "request_latency_seconds": ("histogram", set()),
    "pre_inference_seconds_total": ("counter", set()),
    "inference_request_time_seconds_total": ("counter", set()),
    "post_inference_seconds_total": ("counter", set()),
    "nats_error_total": ("counter", set()),
    "nats_reconnect_total": ("counter", set()),
    "nats_lame_duck_total": ("counter", set()),
    "nats_disconnect_total": ("counter", set()),
    "nats_in_bytes": ("gauge", set()),
    "nats_out_bytes": ("gauge", set()),
    "nats_in_msgs": ("gauge", set()),
    "nats_out_msgs": ("gauge", set()),
    "nats_reconnects": ("gauge", set()),
    "nats_server_fqdn": ("gauge", {"nats_fqdn"}),
    "nats_connected_pri_region": ("gauge", {"region"}),
    "nats_connected_sec_regions": ("gauge", {"regions"}),
    "healthcheck_total": ("counter", {"result"}),
}
WORKER = PROCESS | {
    f"nvcf_worker_service_{name}": (kind, labels | VERSION)
    for name, (kind, labels) in _OF_WORKER.items()
}
"""Metrics of the agent, except ``token_refresh_failure_total``, which needs a registered agent."""


_sample = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_label = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """One line of the exposition."""

    name: str
    labels: dict[str, str]
    value: float


class Shown:
    """One response of /metrics, parsed here because `prometheus_client` changes names."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._samples = [
            Sample(name, dict(_label.findall(labels)), float(value))
            for name, labels, value in _sample.findall(text)
        ]

    def differences(self, expected: dict[str, tuple[str, set[str]]]) -> list[str]:
        """Return the differences from a table: names, types and labels."""
        types = dict(
            line.split()[2:4] for line in self._text.splitlines() if line.startswith("# TYPE ")
        )
        found = []
        for name, (kind, labels) in expected.items():
            series = self._labels(name, kind)
            if types.get(name) != kind:
                found.append(f"{name} is a {types.get(name)}")
            elif not series or any(own != labels for own in series):
                found.append(f"{name} has the labels {series}")
        return found

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the series that have these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _labels(self, name: str, kind: str) -> list[set[str]]:
        suffix = {"histogram": "_count", "summary": "_sum"}.get(kind, "")
        return [set(sample.labels) for sample in self._samples if sample.name == name + suffix]


class Running(NamedTuple):
    """A gateway and an agent that have served one request, and refused another."""

    stack: Stack
    gateway: Gateway
    agent: Program

    async def of_gateway(self) -> Shown:
        return await shown(self.gateway.admin_url)

    async def of_agent(self) -> Shown:
        return await shown(
            f"http://127.0.0.1:{self.agent.wait_event('worker.ready')['admin_port']}"
        )


async def shown(url: str) -> Shown:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Shown(answer.text)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with running_stack() as stack:
        gateway = await asyncio.to_thread(stack.gateway)
        agent = await asyncio.to_thread(stack.agent)
        async with gateway.client() as client:
            answer = await client.post("/echo", content=b"x" * 100)
            assert answer.content == b"x" * 100
            assert (await client.get("/", headers={"authorization": ""})).status_code == 401
        yield Running(stack, gateway, agent)


async def test_the_gateway_shows_every_name_of_the_table(running: Running) -> None:
    metrics = await running.of_gateway()
    assert metrics.differences(GATEWAY) == []
    version = running.stack.demo.version_id
    assert metrics.value("function_request", function_version_id=version) == 1
    stream = f"rq_local_{version}"
    assert metrics.value("nats_jetstream_publish", stream=stream, status="Ok") == 1
    assert metrics.value("axum_http_response_body_size_sum", method="POST", status="200") == 100
    assert metrics.value("axum_http_response_body_size_count") == 1
    assert metrics.value("axum_http_requests_total") == 2
    assert metrics.value("nats_event_connected") == 1
    assert metrics.value("total_nats_errors") == 0


async def test_the_worker_shows_every_name_of_the_table(running: Running) -> None:
    prefix = "nvcf_worker_service_"
    # The client has its answer before the agent hears that it was delivered.
    metrics = await until(
        running.of_agent, lambda shown: shown.value(f"{prefix}response_total"), what="a response"
    )
    assert metrics.differences(WORKER) == []
    assert metrics.value(f"{prefix}response_total", error_code="0") == 1
    assert metrics.value(f"{prefix}response_bytes_total") == 100
    assert metrics.value(f"{prefix}worker_thread_count_total") == 4
    assert metrics.value(f"{prefix}nats_server_fqdn", nats_fqdn=running.stack.nats.url) == 1
    assert metrics.value(f"{prefix}nats_connected_pri_region", region="local") == 1
    assert metrics.value(f"{prefix}nats_in_msgs") >= 1
    assert metrics.value(f"{prefix}healthcheck_total", result="success") >= 1


async def test_calls_over_channels_are_counted_in_both(running: Running) -> None:
    version = running.stack.demo.version_id
    async with running.gateway.client() as client:

        async def called() -> Shown:
            assert (await client.post("/echo")).status_code == 200
            return await running.of_gateway()

        gateway = await until(
            called, lambda shown: shown.value("gateway_dispatched_total", dispatch="direct")
        )
        assert gateway.value("gateway_channels") == 1
        assert gateway.value("gateway_dispatched_total", dispatch="queued") >= 1
        gateway = await until(
            running.of_gateway,
            lambda shown: (
                shown.value("gateway_channel_free_slots", function_version_id=version) == 4
            ),
        )
        assert gateway.value("gateway_channel_calls") == 0
        agent = await running.of_agent()
        assert agent.value("worker_channels") == 1
        for dispatch in ("direct", "queued"):
            assert agent.value("worker_dispatched_total", dispatch=dispatch) == gateway.value(
                "gateway_dispatched_total", dispatch=dispatch
            )
        async with client.stream("GET", "/sse?events=1000&interval_ms=1000") as answer:
            # Its response has begun, and it still holds a slot.
            assert answer.status_code == 200
            gateway = await running.of_gateway()
            assert gateway.value("gateway_channel_calls", function_version_id=version) == 1
            # What heartbeats report as busy, so that the instance is not taken for an idle one.
            agent = await running.of_agent()
            assert agent.value("worker_running_requests") == 1
            assert agent.value("worker_slots", state="busy") == 1
        await until(running.of_gateway, lambda shown: not shown.value("gateway_channel_calls"))


async def test_a_broker_that_goes_away_is_seen_in_both(running: Running) -> None:
    await running.stack.nats.kill()
    await until(running.of_gateway, lambda shown: shown.value("nats_event_client_error"))
    await until(running.of_agent, lambda shown: shown.value("nvcf_worker_service_nats_error_total"))
    gateway, agent = await running.of_gateway(), await running.of_agent()
    assert gateway.value("nats_event_disconnected") == 1
    assert gateway.value("total_nats_errors") >= 1
    assert agent.value("nvcf_worker_service_nats_disconnect_total") == 1
    assert agent.value("nvcf_worker_service_nats_connected_pri_region") == 0
    async with running.gateway.client() as client:
        assert (await client.get("/")).status_code == 503
    gateway = await running.of_gateway()
    assert gateway.value("nats_jetstream_publish", status="Unavailable") == 1
    assert gateway.value("nats_jetstream_publish", status="Ok") == 1


async def test_each_of_several_processes_measures_itself() -> None:
    async with running_stack() as stack:
        gateway = await asyncio.to_thread(stack.gateway, "--processes", "2")
        program = gateway.program

        def ready() -> list[str]:
            events = [json.loads(line) for line in program.lines if "gateway.ready" in line]
            return [f"http://{event['admin']}" for event in events]

        await asyncio.to_thread(program.wait_line, lambda _: len(ready()) == 2)
        one, other = [await shown(url) for url in ready()]
        assert one.differences(PROCESS) == other.differences(PROCESS) == []
        for metrics in (one, other):
            assert metrics.value("process_cpu_seconds_total") > 0
            assert metrics.value("process_resident_memory_bytes") > 10 << 20
            assert abs(metrics.value("process_start_time_seconds") - time.time()) < 60
        async with AsyncExitStack() as connections:
            client = await connections.enter_async_context(httpx.AsyncClient(base_url=ready()[0]))
            for _ in range(10):
                stream = client.stream("GET", "/health/live")
                await connections.enter_async_context(stream)
            busy, idle = [await shown(url) for url in ready()]
            assert busy.value("process_open_fds") - one.value("process_open_fds") >= 10
            assert idle.value("process_open_fds") - other.value("process_open_fds") < 5
