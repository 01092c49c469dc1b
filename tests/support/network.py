"""Machines and networks made of Linux network namespaces: a program's link can be cut and restored.

A network is a bridge in a namespace of its own, a machine a namespace with a link to each network
that it joined. Networks within another one reach each other over it, each by an uplink. A cut link
loses every frame in both directions and nobody is told, as when a cable breaks behind a switch: no
reset, no end of stream, no carrier lost.

Nothing remains: each namespace has no name and lives as long as a holder process, which ends when
its standard input closes, so also when this process is killed. `Machine.prefix` lets programs end
with this process too. The veth pairs end with their namespaces.
"""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Self

_TOOLS = ("ip", "nsenter", "unshare", "setpriv")
_names = itertools.count(1)


class NotPermittedError(Exception):
    """Network namespaces cannot be made here."""


@cache
def why_not_permitted() -> str:
    """Return why network namespaces cannot be made here, empty if they can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Network() as network, Machine() as machine:
            network.join_here()
            machine.join(network).cut()
    except NotPermittedError as error:
        return str(error)
    return ""


def mortal(argv: Sequence[str]) -> list[str]:
    """Return the command that runs ``argv`` and is killed when the thread that started it ends."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "KILL"] if setpriv else []), *argv]


class Namespace:
    """One network namespace; it ends with `close`, or with this process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        # The line says that the namespace exists.
        if self._holder.stdout.readline() != b"\n":
            assert self._holder.stderr is not None
            reason = self._holder.stderr.read().decode().strip()
            self.close()
            raise NotPermittedError(reason)
        try:
            self.run("ip", "link", "set", "lo", "up")
        except NotPermittedError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """A process in the namespace."""
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """Words before a command that run it in the namespace, under the same process id."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *mortal([])]

    def run(self, *argv: str) -> None:
        """Run a command in the namespace. Raises `NotPermittedError` if it fails."""
        _run("nsenter", f"--net=/proc/{self.pid}/ns/net", *argv)

    def close(self) -> None:
        """End the namespace, and with it its links; programs in it keep it alive."""
        for pipe in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if pipe is not None:
                pipe.close()
        self._holder.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Network(Namespace):
    """A switch, with an unused network of 254 addresses.

    ``uplink`` is the cable to the network that it is within, whose addresses it shares.
    """

    def __init__(self, within: "Network | None" = None) -> None:
        super().__init__()
        self._within = within
        self._used = 0
        self._subnet = _unused_subnet()
        self.run("ip", "link", "add", "switch", "type", "bridge")
        self.run("ip", "link", "set", "switch", "up")
        self.uplink = _bridge(within, self) if within is not None else None

    def join_here(self) -> str:
        """Link this process's own namespace to the network; return its address."""
        return _connect(self, None).address

    def next_address(self) -> str:
        """Return an address of the network that no link has."""
        if self._within is not None:
            return self._within.next_address()
        self._used += 1
        return f"{self._subnet}.{self._used}"


class Machine(Namespace):
    """A host for programs."""

    def join(self, network: Network) -> "Link":
        """Link the machine to a network."""
        return _connect(network, self)


class Link:
    """The cable between a machine and a network, or two networks.

    ``address`` is the machine's, empty for an uplink.
    """

    def __init__(self, network: Network, port: str, address: str) -> None:
        self._network = network
        self._port = port
        self.address = address

    def cut(self) -> None:
        """Lose every frame from now on."""
        # The state of a bridge's port does not do it: without a spanning tree the kernel sets it
        # back to forwarding.
        self._network.run("ip", "link", "set", self._port, "nomaster")

    def restore(self) -> None:
        """Pass frames again."""
        self._network.run("ip", "link", "set", self._port, "master", "switch")


def _connect(network: Network, machine: Machine | None) -> Link:
    """Link ``machine``, or this process's namespace if it is None, to ``network``."""
    number = next(_names)
    port, name = f"p{number}", f"t{os.getpid()}x{number}"
    address = network.next_address()
    own = ["netns", str(machine.pid)] if machine is not None else []
    _run(
        *("ip", "link", "add", "name", name, *own),
        *("type", "veth", "peer", "name", port, "netns", str(network.pid)),
    )
    enter = ["nsenter", f"--net=/proc/{machine.pid}/ns/net"] if machine is not None else []
    _run(*enter, "ip", "address", "add", f"{address}/24", "dev", name)
    _run(*enter, "ip", "link", "set", name, "up")
    network.run("ip", "link", "set", port, "master", "switch", "up")
    return Link(network, port, address)


def _bridge(outer: Network, inner: Network) -> Link:
    """Link two switches."""
    port, name = (f"p{next(_names)}" for _ in range(2))
    _run(
        *("ip", "link", "add", "name", name, "netns", str(inner.pid)),
        *("type", "veth", "peer", "name", port, "netns", str(outer.pid)),
    )
    inner.run("ip", "link", "set", name, "master", "switch", "up")
    outer.run("ip", "link", "set", port, "master", "switch", "up")
    return Link(outer, port, "")


def _unused_subnet() -> str:
    """Return the first three numbers of a network for benchmarks (RFC 2544) that is not in use."""
    listed = subprocess.run(
        ["ip", "-4", "-oneline", "address"], capture_output=True, text=True, check=False
    ).stdout
    used = set(re.findall(r"\b(198\.1[89]\.\d+)\.", listed))
    while True:
        high, low = os.urandom(2)
        subnet = f"198.{18 + high % 2}.{low}"
        if subnet not in used:
            return subnet


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermittedError(f"{' '.join(argv)}: {done.stderr.strip()}")
