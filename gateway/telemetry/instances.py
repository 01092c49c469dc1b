"""Metrics of deployments: instances that are wanted and that run, slots that are busy and free.

They are read from the store's records at each scrape, so every process that keeps those (with the
role ``api`` or ``provision``) shows the same numbers, as of the workers' last heartbeats.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from gateway.domain.catalog import Catalog
from gateway.domain.model import Deployment, Instance, Phase
from gateway.domain.states import is_running, of_deployment
from runtime.metrics import MetricRegistry, Reading, ScrapedGauge

_VERSION = ("function_id", "function_version_id")
_INFO = (*_VERSION, "instance_id", "backend", "node", "agent_version", "gpus")


def watch_instances(registry: MetricRegistry, catalog: Catalog, wall: Callable[[], float]) -> None:
    """Show the instances of every deployed version; ``wall`` returns Unix time in seconds."""

    def wanted() -> Iterator[Reading]:
        for deployment in catalog.deployments():
            yield _labels(deployment), wanted_of(deployment, _instances(catalog, deployment))

    def running() -> Iterator[Reading]:
        now = wall()
        for deployment in catalog.deployments():
            yield _labels(deployment), len(_running(catalog, deployment, now))

    def slots() -> Iterator[Reading]:
        now = wall()
        for deployment in catalog.deployments():
            instances = _running(catalog, deployment, now)
            total = sum(instance.slots for instance in instances)
            busy = min(sum(instance.busy for instance in instances), total)
            yield (*_labels(deployment), "busy"), busy
            yield (*_labels(deployment), "free"), total - busy

    facts = partial(_read_facts, catalog)
    for name, help_text, labels, read in (
        ("gateway_instances_wanted", "Instances that should run", _VERSION, wanted),
        ("gateway_instances_running", "Instances that can serve", _VERSION, running),
        ("gateway_slots", "Slots of running instances", (*_VERSION, "state"), slots),
        ("gateway_instance_info", "1 for each instance, with what its worker tells", _INFO, facts),
    ):
        registry.add(ScrapedGauge(name, help_text, labels, read))


def wanted_of(deployment: Deployment, instances: list[Instance]) -> int:
    """Return how many instances of a deployment should run.

    At least its minimum, and every one that was started and is not being stopped; none while it is
    drained.
    """
    if deployment.draining_until is not None:
        return 0
    minimum = sum(spec.min_instances for spec in deployment.specs)
    return max(minimum, sum(instance.phase is not Phase.STOPPING for instance in instances))


def _labels(deployment: Deployment) -> tuple[str, str]:
    return deployment.function_id, deployment.version_id


def _read_facts(catalog: Catalog) -> Iterator[Reading]:
    for deployment in catalog.deployments():
        for instance in _instances(catalog, deployment):
            yield (*_labels(deployment), *_facts(instance)), 1


def _facts(instance: Instance) -> tuple[str, ...]:
    """Return the labels of an instance's own; ``gpus`` are names, each with its number."""
    facts = instance.facts
    gpus = facts.get("gpus")
    named = [gpu["name"] for gpu in gpus] if isinstance(gpus, list) else []
    counted = ", ".join(f"{count} x {name}" for name, count in Counter(named).items())
    return (
        instance.instance_id,
        instance.backend,
        str(facts.get("node", "")),
        str(facts.get("agentVersion", "")),
        counted,
    )


def _instances(catalog: Catalog, deployment: Deployment) -> list[Instance]:
    return of_deployment(deployment, catalog.instances(deployment.version_id))


def _running(catalog: Catalog, deployment: Deployment, now: float) -> list[Instance]:
    return [one for one in _instances(catalog, deployment) if is_running(one, now)]
