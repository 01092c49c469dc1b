"""The servers of an installation and their configuration files. Pure."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import PurePath
from typing import NamedTuple

from queueing.nats.login import DEFAULT_PORT
from queueing.nats.setup.keys import InstallationKeys

MAX_PAYLOAD_BYTES = 8 << 20
"""Of one message: envelopes and records have at most 6 MiB; nats-server's default is 1 MiB."""
MAX_ACCOUNTS = 1_000_000
"""One for each version that was ever deployed; nats-server's default is 1,000."""
CLUSTER_NODES = 3
_CLUSTER_PORT_ABOVE = 2000
_MAX_PORT = 65_535
_LOCAL = "127.0.0.1"
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_is_size = re.compile(r"([1-9]\d{0,15})([KMGT]?)I?B?").fullmatch
_is_name = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9_-]+)*").fullmatch


class SetupPlanError(Exception):
    """The options for an installation do not fit together. The text is one line."""


class Node(NamedTuple):
    """One server: its name, and host and port at which gateways, workers and the others reach it.

    The other servers reach it at ``port`` + 2000.
    """

    name: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port, as in a URL."""
        return _address(self.host, self.port)

    @property
    def cluster_address(self) -> str:
        """The same, for the other servers."""
        return _address(self.host, self.port + _CLUSTER_PORT_ABOVE)

    def listen(self, port: int) -> str:
        """Return the address on which it listens for ``port``: all of its own, or loopback."""
        try:
            address = ip_address(self.host)
        except ValueError:
            return f"0.0.0.0:{port}"
        if address.is_loopback:
            return _address(self.host, port)
        return f"[::]:{port}" if address.version == 6 else f"0.0.0.0:{port}"


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """An installation. ``path`` is its folder on the machines of servers and gateways.

    ``memory_bytes`` and ``disk_bytes`` are what JetStream may take of each server.
    ``route_password`` is how the servers know each other. ``has_ca`` says whether the certificates,
    if there are any, are of an authority whose file is in the installation.
    """

    nodes: tuple[Node, ...]
    path: PurePath
    memory_bytes: int
    disk_bytes: int
    route_password: str = field(repr=False)
    has_tls: bool = False
    has_ca: bool = False

    @property
    def is_cluster(self) -> bool:
        """Whether there are several servers."""
        return len(self.nodes) > 1

    @property
    def urls(self) -> list[str]:
        """The servers' URLs for gateways and workers."""
        scheme = "tls" if self.has_tls else "nats"
        return [f"{scheme}://{node.address}" for node in self.nodes]

    def server_config(self, node: Node) -> str:
        """Return the configuration of one server."""
        home = self.path / node.name
        lines = [
            "# A server of queue and store of the invocation gateway; docs/nats.md explains it.",
            f"server_name: {_quoted(node.name)}",
            f"listen: {_quoted(node.listen(node.port))}",
            f"client_advertise: {_quoted(node.address)}",
            "# Requests and records have up to 6 MiB.",
            f"max_payload: {MAX_PAYLOAD_BYTES}",
            "# What one server may take. What is acknowledged is on the disk (sync_interval).",
            "jetstream {",
            f"  store_dir: {_quoted(str(home / 'data' / 'jetstream'))}",
            f"  max_mem: {self.memory_bytes}",
            f"  max_file: {self.disk_bytes}",
            "  sync_interval: always",
            "}",
            "# The gateways add and delete an account for each function version.",
            "resolver {",
            "  type: full",
            f"  dir: {_quoted(str(home / 'data' / 'accounts'))}",
            f"  limit: {MAX_ACCOUNTS}",
            "  allow_delete: true",
            "  hard_delete: true",
            '  interval: "2m"',
            "}",
            *(["tls {", *self._tls(home), "}"] if self.has_tls else []),
            *(self._cluster(node, home) if self.is_cluster else []),
            "# Operator and accounts: written again when a key is rotated.",
            'include "accounts.conf"',
        ]
        return "\n".join(lines) + "\n"

    def _tls(self, home: PurePath) -> list[str]:
        found = [
            f"  cert_file: {_quoted(str(home / 'tls.crt'))}",
            f"  key_file: {_quoted(str(home / 'tls.key'))}",
        ]
        if self.has_ca:
            found.append(f"  ca_file: {_quoted(str(home / 'ca.pem'))}")
        return found

    def _cluster(self, node: Node, home: PurePath) -> list[str]:
        others = [other for other in self.nodes if other != node]
        login = f"route:{self.route_password}"
        return [
            "cluster {",
            "  name: gateway",
            f"  listen: {_quoted(node.listen(node.port + _CLUSTER_PORT_ABOVE))}",
            f"  cluster_advertise: {_quoted(node.cluster_address)}",
            f"  authorization {{ user: route, password: {_quoted(self.route_password)} }}",
            "  routes: [",
            *(f"    {_quoted(f'nats-route://{login}@{one.cluster_address}')}" for one in others),
            "  ]",
            *(["  tls {", *("  " + line for line in self._tls(home)), "  }"] * self.has_tls),
            "}",
        ]

    def gateway_settings(self) -> str:
        """Return the settings with which a gateway finds the servers (TOML)."""
        home = self.path / "gateway"
        urls = ", ".join(map(_quoted, self.urls))
        lines = [
            "[nats]",
            f"urls = [{urls}]",
            f"credentials_file = {_quoted(str(home / 'gateway.creds'))}",
            f"operator_seed_file = {_quoted(str(home / 'operator-signing.nk'))}",
            f"system_credentials_file = {_quoted(str(home / 'system.creds'))}",
            *([f"ca_file = {_quoted(str(home / 'ca.pem'))}"] if self.has_ca else []),
            "",
            "[store]",
            f"replicas = {CLUSTER_NODES if self.is_cluster else 1}",
        ]
        return "\n".join(lines) + "\n"


def accounts_config(keys: InstallationKeys) -> str:
    """Return the part of the servers' configuration that names operator and accounts."""
    operators = "\n".join(f"  {document}" for document in keys.operator_documents())
    accounts = "\n".join(f"  {id_}: {text}" for id_, text in keys.account_documents().items())
    return (
        "# Written by `gateway nats`: do not change it by hand. It holds no secrets.\n"
        f"operator: [\n{operators}\n]\n"
        f"system_account: {keys.system_id}\n"
        f"resolver_preload: {{\n{accounts}\n}}\n"
    )


def plan_nodes(count: int, hosts: list[str]) -> tuple[Node, ...]:
    """Return the servers at ``hosts``, each ``HOST[:PORT]``; without any on this machine.

    Raises `SetupPlanError`.
    """
    if count not in {1, CLUSTER_NODES}:
        raise SetupPlanError(
            f"An installation has 1 server, or {CLUSTER_NODES} that replace each other, not "
            f"{count}."
        )
    if not hosts:
        hosts = [f"{_LOCAL}:{DEFAULT_PORT + number}" for number in range(count)]
    if len(hosts) != count:
        raise SetupPlanError(
            f"Give --host once for each of the {count} servers, not {len(hosts)} times."
        )
    nodes = tuple(
        Node(f"nats-{number}", *_host(text)) for number, text in enumerate(hosts, start=1)
    )
    taken: set[tuple[str, int]] = set()
    for node in nodes:
        for port in (node.port, node.port + _CLUSTER_PORT_ABOVE):
            if (node.host, port) in taken:
                raise SetupPlanError(f"Two servers would use {_address(node.host, port)}.")
            taken.add((node.host, port))
    return nodes


def size_bytes(option: str, text: str) -> int:
    """Return the bytes of a size such as 512M, 4G or 1T. Raises `SetupPlanError`."""
    found = _is_size(text.strip().upper())
    if found is None:
        raise SetupPlanError(f"{option} takes a size such as 512M, 4G or 1T, not {text}.")
    return int(found[1]) << _UNITS[found[2]]


def _host(text: str) -> tuple[str, int]:
    bare, port = text, DEFAULT_PORT
    in_brackets = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?", text)
    if in_brackets:
        bare, port = in_brackets[1], int(in_brackets[2] or DEFAULT_PORT)
    elif found := re.fullmatch(r"([^:]+):(\d{1,5})", text):
        bare, port = found[1], int(found[2])
    is_address = True
    try:
        ip_address(bare)
    except ValueError:
        is_address = False
    if not is_address and not _is_name(bare):
        raise SetupPlanError(
            f"{text} is not a host: give --host as HOST, HOST:PORT or [IPV6]:PORT."
        )
    if not 0 < port <= _MAX_PORT - _CLUSTER_PORT_ABOVE:
        raise SetupPlanError(
            f"The port of {text} must be at least 1 and at most {_MAX_PORT - _CLUSTER_PORT_ABOVE}: "
            f"the servers reach each other at a port {_CLUSTER_PORT_ABOVE} higher."
        )
    return bare, port


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _quoted(text: str) -> str:
    """Return a text in the double quotes of nats-server's configuration, and of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
