"""Clusters from the settings: the documented example, and which command an image gets."""

import sys
from pathlib import Path

import pytest

from gateway.app.provisioning import (
    ProvisioningError,
    cluster_groups,
    kubernetes_backend,
    pod_options,
    process_options,
)
from gateway.domain.clusters import VersionSource
from gateway.settings import ENV_PREFIX, GatewaySettings
from runtime.settings import SettingsError, load

ROOT = Path(__file__).parents[4]
CONFIG = ROOT / "config" / "gateway.toml"


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    """Return the settings of the example in ``config/gateway.toml``."""
    lines = CONFIG.read_text().splitlines()
    example = tmp_path / "gateway.toml"
    example.write_text("\n".join(line[2:].strip() for line in lines if line.startswith("#>")))
    return load(GatewaySettings, example, ENV_PREFIX, environ={})


def test_the_documented_cluster_is_one_that_functions_can_be_deployed_to(
    settings: GatewaySettings,
) -> None:
    (group,) = cluster_groups(settings.clusters)
    gpu = group.gpu("l40s")
    assert gpu is not None
    assert (group.name, gpu.default_type().name) == ("local", "l40s-1x")


def test_the_first_pattern_that_an_image_matches_counts(settings: GatewaySettings) -> None:
    template_of = process_options(settings.provision, settings.clusters).template_of
    echo = "process://uvicorn my_model:app --port {port}"
    assert template_of("local", "registry.example.com/echo:7") == echo
    assert (
        template_of("local", "other")
        == "process://{python} -m gateway.examples.inference --port {port}"
    )
    assert template_of("elsewhere", "other") is None


def test_a_command_of_another_kind_is_refused() -> None:
    clusters = '[{"name": "local", "images": {"*": "docker://x"}}]'
    with pytest.raises(SettingsError, match="clusters"):
        load(GatewaySettings, None, ENV_PREFIX, environ={"GATEWAY_CLUSTERS": clusters})


@pytest.fixture
def pods(tmp_path: Path) -> GatewaySettings:
    """Return the settings of the example in ``docs/kubernetes.md``."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    example = next(part for part in page.split("```") if "[[clusters]]" in part)
    file = tmp_path / "pods.toml"
    file.write_text(example)
    return load(GatewaySettings, file, ENV_PREFIX, environ={})


def test_the_documented_cluster_of_pods_runs_every_image_on_the_nodes_of_its_type(
    pods: GatewaySettings,
) -> None:
    (cluster,) = pods.clusters
    options = pod_options(cluster, pods.provision)
    shape = options.shapes["L40S", "l40s-2x"]
    assert (shape.gpus, shape.resources["memory"]) == (2, "128Gi")
    assert shape.node_selector == {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    assert options.tolerations == ({"key": "nvidia.com/gpu", "operator": "Exists"},)
    assert options.drain_s == pods.provision.stop_grace_s
    (group,) = cluster_groups(pods.clusters)
    assert group.runs(VersionSource("any/image:1"))
    assert not group.runs(VersionSource("", is_chart=True))


def test_a_cluster_of_pods_needs_an_agent() -> None:
    clusters = '[{"name": "gpus", "backend": "kubernetes"}]'
    with pytest.raises(SettingsError) as refused:
        load(GatewaySettings, None, ENV_PREFIX, environ={"GATEWAY_CLUSTERS": clusters})
    assert "kubernetes.agent_image: must be set" in str(refused.value)


def test_without_the_extra_the_message_says_what_to_install(
    pods: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("gateway.provision.kubernetes.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio", None)
    with pytest.raises(ProvisioningError, match=r"pip install 'invocation-gateway\[kubernetes\]'"):
        kubernetes_backend(pods.clusters[0], pods.provision)
