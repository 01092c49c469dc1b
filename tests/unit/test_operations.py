"""The fields and metrics that docs/operations.md lists are those that the programs have."""

import json
import re
from pathlib import Path

import pytest

from gateway.api.audit import Change
from gateway.api.routes.functions import ROUTES
from gateway.auth.sealing import SecretBox
from gateway.domain.catalog import Catalog
from gateway.domain.model import EVERYTHING
from gateway.domain.principal import Principal
from gateway.domain.readmodel import ReadModel
from gateway.invocation.states import Outcome
from gateway.telemetry.access_log import AccessLog, Refusal
from gateway.telemetry.instances import watch_instances
from gateway.telemetry.metrics import GatewayMetrics
from gateway.webhooks.addresses import WebhookRules
from gateway.webhooks.deliverer import WebhookClocks, WebhookDeliverer
from gateway.webhooks.outbox import WebhookOutbox
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.sender import WebhookSender
from queueing.redis.connection import RedisConnection
from queueing.redis.link import RedisOptions
from queueing.redis.metrics import register_connection
from runtime.line_budget import LineBudget
from runtime.logs import LineWriter
from runtime.loop_turns import LoopTurns
from runtime.metrics import MetricRegistry
from runtime.version import show_version
from tests.support.detached import make_book, make_keyed_calls
from tests.support.invocation_world import World
from tests.support.memory_documents import MemoryDocuments
from tests.support.recorder import RecordedQueue, Script
from worker_agent.app.metrics import Metrics
from worker_agent.slots import Slots

_PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
_COMMON = {"ts", "level", "logger", "event"}
_OUTSIDE = {
    "gateway_queue_losses_total",
    "gateway_queue_republished_total",
    "gateway_upload_bytes",
    "gateway_worker_logins_total",
}
"""Metrics of the gateway that other tests watch: those of the broker and of collected bodies."""


def table(heading: str, head: str) -> set[str]:
    """Return what the first column of a table below a heading names in backticks."""
    section = _PAGE.split(f"### {heading}\n")[1].split("\n##")[0]
    rows = section.split(f"| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


class Lines(LineWriter):
    def __init__(self) -> None:
        super().__init__(1)
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def test_the_access_lines_fields_and_outcomes_are_listed() -> None:
    writer = Lines()
    log = AccessLog(writer, lambda: 0.0)
    world = World().stream()
    world.invocation.detached = "async"
    world.invocation.response_end()
    log.write(world.invocation, 101.0)
    log.write_refusal(Refusal("id", 401, "unauthorized"))
    finished, refused = (set(json.loads(line)) - _COMMON for line in writer.lines)
    assert table("Access line", "field") == finished
    assert table("Access line", "outcome") == {outcome.value for outcome in Outcome}
    assert table("Refused calls", "field") == refused


def test_the_audit_lines_fields_are_listed(caplog: pytest.LogCaptureFixture) -> None:
    change = Change(ROUTES[0], Principal("acme", "alice", frozenset(), EVERYTHING))
    ids = ("functionId", "functionVersionId", "deploymentId", "gpuSpecificationId")
    change.concerns(
        dict.fromkeys((*ids, "keyId", "tokenId", "ncaId", "clientId"), "x"), None, "acme"
    )
    change.end(200, "", "id", LineBudget(1))
    (record,) = caplog.records
    assert table("Audit line", "field") == set(vars(record)["fields"])


def test_every_metric_of_the_gateway_is_listed() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = GatewayMetrics(registry)
    show_version(registry, "gateway")
    metrics.watch_queue(RecordedQueue(Script()))
    metrics.watch_dispatch(_Counts(), lambda: 0)
    metrics.watch_websockets(list)
    book = make_book()
    metrics.watch_detached(book)
    metrics.watch_keyed(make_keyed_calls(book).decisions)
    metrics.watch_log(Lines())
    metrics.watch_turns(LoopTurns())
    watch_instances(registry, Catalog(ReadModel()), lambda: 0.0)
    register_connection(registry, RedisConnection(RedisOptions(())), "gateway_redis")
    watch_webhooks(registry)
    assert table("Gateway", "name") == names(registry, "gateway_") | _OUTSIDE


def test_every_metric_of_the_worker_agent_is_listed() -> None:
    registry = MetricRegistry(with_process=False)
    metrics = Metrics(registry, lambda: 0.0)
    metrics.watch_slots(Slots(1, 1))
    metrics.watch_channels(_Open())
    register_connection(registry, RedisConnection(RedisOptions(())), "worker_redis")
    metrics.watch_turns(LoopTurns())
    assert table("Worker agent", "name") == names(registry, "worker_")


def watch_webhooks(registry: MetricRegistry) -> None:
    store, rules = MemoryDocuments(), WebhookRules()
    WebhookOutbox(store, rules, registry, lambda: 0.0)
    secrets = WebhookSecrets(store, SecretBox(bytes(32)), lambda: 0.0, bytes)
    clocks = WebhookClocks(lambda: 0.0, lambda: 0.0, lambda: 0.0)
    sender = WebhookSender(rules)
    WebhookDeliverer(store, secrets, sender, clocks, "", 0.0).show_state(registry)


class _Open:
    """The channels of an agent that has none."""

    links_lost = 0

    def __len__(self) -> int:
        return 0


class _Counts(_Open):
    """Those of a gateway process."""

    direct = busy = late = 0

    def running(self) -> dict[str, int]:
        return {}

    def slots(self) -> list[tuple[str, int]]:
        return []


def names(registry: MetricRegistry, prefix: str) -> set[str]:
    exposed = registry.exposition().decode().splitlines()
    declared = {line.split()[2] for line in exposed if line.startswith("# TYPE ")}
    return {name for name in declared if name.startswith(prefix)}
