"""The chart as Helm renders it."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

from tests.support.deploy_files import CHART

VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").iterdir())}
NAMESPACE = "prod"
POD_OWNERS = {"Deployment", "StatefulSet", "Job"}


class HelmError(Exception):
    """Helm has refused the values; the text is what it says."""


@cache
def render(helm: Path, values: Path | None, *more: str, chart: Path = CHART) -> "Release":
    """Return what Helm would install. Raises `HelmError`."""
    command = [str(helm), "template", "gw", str(chart), "--namespace", NAMESPACE, *more]
    if values is not None:
        command += ["--values", str(values)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise HelmError(found.stderr)
    return Release([one for one in yaml.safe_load_all(found.stdout) if one])


class Release:
    """The objects of one rendering."""

    def __init__(self, objects: list[dict]) -> None:
        self.objects = objects

    def of_kind(self, kind: str) -> list[dict]:
        return [one for one in self.objects if one["kind"] == kind]

    def named(self, kind: str, name: str) -> dict:
        (found,) = [one for one in self.of_kind(kind) if one["metadata"]["name"] == name]
        return found

    def pods(self) -> Iterator[tuple[str, dict]]:
        """Yield the name of each object that makes pods, and its template."""
        for one in self.objects:
            if one["kind"] in POD_OWNERS:
                yield one["metadata"]["name"], one["spec"]["template"]

    def gateways(self) -> Iterator[dict]:
        """Yield the specification of each kind of gateway pod."""
        for one in self.of_kind("Deployment"):
            yield one["spec"]["template"]["spec"]

    def selected(self, labels: dict[str, str]) -> list[dict]:
        """Return the templates of the pods that have these labels."""
        return [
            template
            for _, template in self.pods()
            if labels.items() <= template["metadata"]["labels"].items()
        ]


def environment(pod: dict) -> dict[str, str]:
    """Return a gateway container's variables, with stand-ins for addresses and secrets."""
    environ = {}
    for one in pod["containers"][0]["env"]:
        is_address = "fieldRef" in one.get("valueFrom", {})
        environ[one["name"]] = one.get("value", "10.0.0.1" if is_address else "secret")
    return environ
