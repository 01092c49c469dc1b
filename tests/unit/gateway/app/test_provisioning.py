"""Clusters from the settings: the documented example, and which command an image gets."""

from pathlib import Path

import pytest

from gateway.app.provisioning import cluster_groups, process_options
from gateway.settings import ENV_PREFIX, GatewaySettings
from runtime.settings import SettingsError, load

CONFIG = Path(__file__).parents[4] / "config" / "gateway.toml"


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
