from dataclasses import asdict

from gateway.app.options import collection_bounds, edge_limits
from gateway.settings import EdgeSettings, UploadSettings
from http1.server.limits import ServerLimits

OTHERS = {"listen", "host_suffix", "processes", "max_body_bytes", "cors_origins"}
LIMITS = EdgeSettings.model_fields.keys() - OTHERS


def test_every_limit_among_the_settings_reaches_the_listener() -> None:
    changed = {name: getattr(EdgeSettings(), name) + 1 for name in LIMITS}
    limits = asdict(edge_limits(EdgeSettings(**changed)))
    assert {name: limits[name] for name in LIMITS} == changed


def test_every_bound_of_uploads_reaches_their_space() -> None:
    names = UploadSettings.model_fields.keys() - {"spool_folder"}
    changed = {name: number for number, name in enumerate(sorted(names), 1)}
    assert asdict(collection_bounds(UploadSettings(**changed))) == changed


def test_without_settings_the_limits_have_their_own_defaults() -> None:
    assert edge_limits(EdgeSettings()) == ServerLimits()
