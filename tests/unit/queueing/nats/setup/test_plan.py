"""Hosts, sizes and configuration files of an installation."""

import os
import tomllib
from pathlib import PurePath

import pytest

from queueing.nats.setup.keys import make_keys
from queueing.nats.setup.plan import (
    SetupPlan,
    SetupPlanError,
    accounts_config,
    plan_nodes,
    size_bytes,
)

HOSTS = ["nats-1.example.com", "10.0.0.2:4300", "[2001:db8::3]:4222"]


def plan(count: int = 3, *, has_tls: bool = True) -> SetupPlan:
    hosts = HOSTS if count > 1 else HOSTS[:1]
    path = PurePath('/etc/a "quoted" folder')
    return SetupPlan(plan_nodes(count, hosts), path, 1 << 30, 1 << 33, "secret", has_tls, has_tls)


def test_each_server_is_reached_where_it_is_said_to_be() -> None:
    assert plan().urls == [
        "tls://nats-1.example.com:4222",
        "tls://10.0.0.2:4300",
        "tls://[2001:db8::3]:4222",
    ]
    configs = [plan().server_config(node) for node in plan().nodes]
    assert 'client_advertise: "nats-1.example.com:4222"' in configs[0]
    assert 'listen: "0.0.0.0:4300"' in configs[1]
    assert 'listen: "[::]:6222"' in configs[2]
    assert configs[1].count("nats-route://") == 2
    assert '"nats-route://route:secret@[2001:db8::3]:6222"' in configs[1]
    assert "10.0.0.2:6300" not in configs[1].partition("routes: [")[2]


def test_without_hosts_servers_are_on_loopback_only() -> None:
    nodes = plan_nodes(3, [])
    assert [node.address for node in nodes] == [f"127.0.0.1:{port}" for port in (4222, 4223, 4224)]
    assert {node.listen(node.port).split(":")[0] for node in nodes} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("count", "hosts", "reason"),
    [
        (2, [], "1 server, or 3"),
        (3, ["a"], "once for each"),
        (3, ["a", "b", "a"], "Two servers would use a:4222"),
        (3, ["a:4222", "b", "a:6222"], "Two servers would use a:6222"),
        (1, ["http://a"], "is not a host"),
        (1, ["a b"], "is not a host"),
        (1, ['a"'], "is not a host"),
        (1, ["[::1]"], ""),
        (1, ["a:0"], "at least 1"),
        (1, ["a:64000"], "at most 63535"),
    ],
)
def test_hosts_that_cannot_be_are_refused(count: int, hosts: list[str], reason: str) -> None:
    if not reason:
        assert plan_nodes(count, hosts)[0].address == "[::1]:4222"
        return
    with pytest.raises(SetupPlanError, match=reason):
        plan_nodes(count, hosts)


def test_sizes_are_powers_of_1024() -> None:
    assert [size_bytes("--disk", text) for text in ("7", "512M", "4g", "1TiB", "2GB")] == [
        7,
        512 << 20,
        4 << 30,
        1 << 40,
        2 << 30,
    ]
    for text in ("", "0", "-1", "1.5G", "G", "1Z"):
        with pytest.raises(SetupPlanError, match="--disk takes a size"):
            size_bytes("--disk", text)


def test_gateways_find_servers_and_logins() -> None:
    settings = tomllib.loads(plan().gateway_settings())
    assert settings["nats"]["urls"] == plan().urls
    assert settings["nats"]["ca_file"] == '/etc/a "quoted" folder/gateway/ca.pem'
    assert settings["store"]["replicas"] == 3
    alone = tomllib.loads(plan(1, has_tls=False).gateway_settings())
    assert "ca_file" not in alone["nats"]
    assert alone["nats"]["urls"] == ["nats://nats-1.example.com:4222"]
    assert alone["store"]["replicas"] == 1


def test_servers_get_no_seed() -> None:
    keys = make_keys(os.urandom, 0)
    config = accounts_config(keys)
    for seed in (keys.operator, keys.operator_signing, keys.account, keys.account_signing):
        assert seed not in config
