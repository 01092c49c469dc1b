"""Instances wanted and running, slots busy and free, from the records of the store."""

from dataclasses import replace

from gateway.domain.catalog import Catalog
from gateway.domain.model import Deployment, GpuSpec, Instance, Phase
from gateway.domain.readmodel import ReadModel
from gateway.telemetry.instances import wanted_of, watch_instances
from runtime.metrics import MetricRegistry
from wire.ids import FunctionId, VersionId

FUNCTION, VERSION = FunctionId("f"), VersionId("v")
SPEC = GpuSpec("s", "A100", "cluster", "local", min_instances=2, max_instances=9)
DEPLOYMENT = Deployment("d", FUNCTION, VERSION, "acme", (SPEC,), "", "", deadline_at=0)


def instance(number: int, phase: Phase = Phase.RUNNING, *, busy: int = 0) -> Instance:
    return Instance(
        *(f"i{number}", "d", "s", FUNCTION, VERSION, "acme", "A100", "local", "cluster", phase),
        is_connected=True,
        is_healthy=True,
        slots=4,
        busy=busy,
        lease_until=100,
    )


def test_what_a_deployment_wants_is_its_minimum_and_what_was_started() -> None:
    started = [instance(number) for number in range(3)]
    assert wanted_of(DEPLOYMENT, []) == 2
    assert wanted_of(DEPLOYMENT, started) == 3
    assert wanted_of(DEPLOYMENT, [instance(0, Phase.STOPPING), *started[1:]]) == 2
    assert wanted_of(replace(DEPLOYMENT, draining_until=9), started) == 0


def test_instances_and_slots_are_those_of_the_records_at_the_scrape() -> None:
    registry, catalog = MetricRegistry(with_process=False), Catalog(ReadModel())
    now = 50.0
    watch_instances(registry, catalog, lambda: now)
    assert b"{" not in registry.exposition()
    for change in (
        DEPLOYMENT,
        instance(1, busy=3),
        instance(2, busy=4),
        replace(instance(3), is_healthy=False),
        replace(instance(4), deployment_id="earlier"),
    ):
        catalog.apply(change)
    shown = registry.exposition().decode()
    labels = 'function_id="f",function_version_id="v"'
    assert f"gateway_instances_wanted{{{labels}}} 3\n" in shown
    assert f"gateway_instances_running{{{labels}}} 2\n" in shown
    assert f'gateway_slots{{{labels},state="busy"}} 7\n' in shown
    assert f'gateway_slots{{{labels},state="free"}} 1\n' in shown
    now = 101.0
    assert f"gateway_instances_running{{{labels}}} 0\n" in registry.exposition().decode()
