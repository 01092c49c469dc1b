from dataclasses import asdict, fields
from math import inf

import pytest

from gateway.app.options import (
    attach_limits,
    collection_bounds,
    edge_limits,
    sources,
    websocket_limits,
)
from gateway.settings import AttachSettings, EdgeSettings, UploadSettings, WebSocketSettings
from http1.server.limits import ServerLimits
from http1.stream import Peer, Request
from runtime.setting_rules import RefusedError

OTHERS = {
    "listen",
    "host_suffix",
    "processes",
    "max_body_bytes",
    "trusted_hops",
    "cors_origins",
}
LIMITS = {field.name for field in fields(EdgeSettings)} - OTHERS


def test_every_limit_among_the_settings_reaches_the_listener() -> None:
    changed = {name: getattr(EdgeSettings(), name) + 1 for name in LIMITS}
    limits = asdict(edge_limits(EdgeSettings(**changed)))
    assert {name: limits[name] for name in LIMITS} == changed


@pytest.mark.parametrize(
    ("peer", "is_believed"),
    [("10.1.2.3", True), ("11.1.2.3", False), ("127.0.0.1", True), ("fd00::1", True), ("", True)],
)
def test_networks_addresses_and_unix_sockets_can_be_trusted(peer: str, is_believed: bool) -> None:
    edge = EdgeSettings.from_setting(
        {"trusted_hops": ["10.0.0.0/8", "127.0.0.1", "fd00::/8", "unix"]}
    )
    headers = [(b"x-forwarded-for", b"203.0.113.7")]
    request = Request(b"GET", b"/", b"h", headers, 0, 0.0, b"h", Peer(peer))
    assert sources(edge).find(request).address == ("203.0.113.7" if is_believed else peer)
    assert sources(EdgeSettings()).find(request).address == peer


@pytest.mark.parametrize("hop", ["10.0.0.1/8", "proxy.example", "unix:/path", ""])
def test_a_trusted_hop_that_names_no_network_is_refused(hop: str) -> None:
    with pytest.raises(RefusedError, match="not a network"):
        EdgeSettings.from_setting({"trusted_hops": [hop]})


def test_every_bound_of_uploads_reaches_their_space() -> None:
    names = {field.name for field in fields(UploadSettings)} - {"spool_folder"}
    changed = {name: number for number, name in enumerate(sorted(names), 1)}
    assert asdict(collection_bounds(UploadSettings(**changed))) == changed


def test_without_settings_the_limits_have_their_own_defaults() -> None:
    assert edge_limits(EdgeSettings()) == ServerLimits()


def test_every_setting_of_websockets_reaches_them_and_no_worker_is_too_silent_for_one() -> None:
    changed = {"max_s": 0.0, "idle_s": 7.0}
    assert asdict(websocket_limits(WebSocketSettings(**changed))) == changed
    assert attach_limits(AttachSettings()).body_stall_s == inf
