from dataclasses import asdict

from gateway.app.options import edge_limits
from gateway.settings import EdgeSettings
from http1.server.limits import EdgeLimits

OTHERS = {"listen", "host_suffix", "processes"}
LIMITS = EdgeSettings.model_fields.keys() - OTHERS


def test_every_limit_among_the_settings_reaches_the_listener() -> None:
    changed = {name: getattr(EdgeSettings(), name) + 1 for name in LIMITS}
    limits = asdict(edge_limits(EdgeSettings(**changed)))
    assert {name: limits[name] for name in LIMITS} == changed


def test_without_settings_the_limits_have_their_own_defaults() -> None:
    assert edge_limits(EdgeSettings()) == EdgeLimits()
