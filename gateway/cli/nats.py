"""``gateway nats``: the files of NATS servers, the rotation of keys, and a check.

See docs/nats.md. Nothing of it needs a gateway; `push` and `check` need the servers.
"""

import asyncio
import logging
import os
import shlex
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gateway.cli.errors import CommandError, fail, usage
from gateway.cli.options import JsonOption
from gateway.cli.output import print_json, print_table, print_text, say
from gateway.settings import read_settings
from gateway.store.names import BUCKETS, IN_MEMORY
from queueing.nats.login import ConnectionOptions, Login
from queueing.nats.setup.check import Checked, NatsCheck
from queueing.nats.setup.findings import Level, StoreBuckets
from queueing.nats.setup.folder import (
    SERVER_CONFIG,
    GivenCertificate,
    Installation,
    make_installation,
)
from queueing.nats.setup.keys import RotatedKey, SetupKeysError, make_keys
from queueing.nats.setup.plan import SetupPlan, SetupPlanError, plan_nodes, size_bytes
from queueing.nats.setup.servers import AccountPushed, ServersError, connected_to, push_accounts
from runtime.settings import SettingsError

app = typer.Typer(
    name="nats",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Set up NATS servers, rotate their keys, and check them (docs/nats.md).",
)

Result = TypeVar("Result")

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder that 'gateway nats init' made.")
]


@app.command("init")
def init(  # noqa: PLR0913 - one argument per option
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to make; it must not exist or be empty.")
    ],
    nodes: Annotated[
        int, typer.Option("--nodes", metavar="N", help="Number of servers: 1 or 3.")
    ] = 1,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="HOST[:PORT]",
            help="Name or address at which gateways, workers and the other servers reach a server; "
            "once for each. The servers reach each other at a port 2000 higher. Default: this "
            "machine alone, 127.0.0.1 with the ports 4222, 4223, 4224.",
        ),
    ] = None,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls", help="Use TLS, with certificates of an authority that is made for it."
        ),
    ] = False,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use TLS with this certificate and its chain (PEM), for all hosts. Default: none.",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key of --tls-certificate, required with it."),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CA certificates that verify --tls-certificate. Default: those of the system.",
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Memory that each server may take for queues."),
    ] = "2G",
    disk: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Disk that each server may take for the store."),
    ] = "10G",
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Where DIR is on the machines of servers and gateways: absolute. Default: DIR.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make operator, accounts, logins and server configurations in DIR; print the settings.

    DIR/nats-1 and so on are for the servers, DIR/gateway is for the gateways. Keep the rest of DIR,
    with operator-keys.json, where neither of them can read it: it signs new logins. Nothing is
    overwritten.
    """

    def make() -> tuple[Installation, SetupPlan]:
        given = _given(tls_certificate, tls_key, tls_ca)
        if tls and given is not None:
            raise SetupPlanError("Give --tls for certificates of its own, or --tls-certificate.")
        if path is not None and not path.is_absolute():
            raise SetupPlanError(f"--path must be absolute, not {path}.")
        plan = SetupPlan(
            nodes=plan_nodes(nodes, host or []),
            path=path or folder.absolute(),
            memory_bytes=size_bytes("--memory", memory),
            disk_bytes=size_bytes("--disk", disk),
            route_password=os.urandom(24).hex(),
            has_tls=tls or given is not None,
            has_ca=tls or (given is not None and given.authority is not None),
        )
        now = datetime.now(UTC)
        keys = make_keys(os.urandom, int(now.timestamp()))
        return make_installation(folder, plan, keys, now, given), plan

    made, plan = _run(make)
    if as_json:
        print_json(
            {
                "servers": [str(server) for server in made.servers],
                "urls": plan.urls,
                "settings": str(made.settings),
            }
        )
        return
    server = shlex.quote(f"{plan.path}/{made.servers[0].name}/{SERVER_CONFIG}")
    say(f"{folder} was made. Start each server as this one: nats-server -c {server}")
    say(f"The gateways' settings, also in {made.settings}:")
    print_text(plan.gateway_settings(), nl=False)
    if plan.has_ca:
        say(
            "Workers that the gateway does not start need WORKER_NATS__CA_FILE: a copy of "
            f"{made.ca_file}."
        )
    say("Check running servers with: gateway nats check --config SETTINGS")


@app.command("rotate")
def rotate(
    folder: FolderArgument,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="operator, operator-signing, account-signing, gateway-user, system-user or "
            "certificates.",
        ),
    ],
    finish: Annotated[
        bool, typer.Option("--finish", help="End the old key, which was valid until now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Replace a key: without --finish the new one is made and the old one stays valid.

    Only files in DIR change; docs/nats.md says for each key which of them go where, and what to
    restart or to push. Certificates are replaced at once.
    """

    def change() -> list[Path]:
        if key == _CERTIFICATES and finish:
            raise SetupPlanError("Certificates are replaced at once: leave out --finish.")
        if key not in {*RotatedKey, _CERTIFICATES}:
            raise SetupPlanError(
                f"{key} is no key: give {', '.join(RotatedKey)} or {_CERTIFICATES}."
            )
        installation = Installation(folder)
        with installation.locked():
            if key == _CERTIFICATES:
                return installation.renew_certificates(datetime.now(UTC))
            return _change_key(installation, RotatedKey(key), is_end=finish)

    changed = [str(file) for file in _run(change)]
    if as_json:
        print_json({"changed": changed})
        return
    for file in changed:
        print_text(file)
    say("These files have changed: docs/nats.md says where they go, and what comes next.")


def _change_key(installation: Installation, key: RotatedKey, *, is_end: bool) -> list[Path]:
    """Take one step of a rotation, or complete the one before if that was cut short.

    Returns the files that changed. Raises `SetupPlanError` and OSError.
    """
    keys, now = installation.read_keys(), int(time.time())
    completed = installation.write_keys(keys)
    if completed and (keys.begun() is None if is_end else keys.begun() is key):
        say("The command before was cut short: what it had changed by then is not named below.")
        return completed
    try:
        new = keys.retire(key, now) if is_end else keys.rotate(key, os.urandom, now)
    except SetupKeysError as error:
        raise SetupPlanError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    return list(dict.fromkeys([*completed, *installation.write_keys(new)]))


@app.command("push")
def push(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Give running servers the accounts in DIR, with the keys and revocations of today.

    It may be repeated. It exits with 1 if a server refuses one.
    """

    def send() -> tuple[list[AccountPushed], int]:
        installation = Installation(folder)
        with installation.locked():
            keys = installation.read_keys()
            # Completes a rotation that was cut short.
            installation.write_keys(keys)
        try:
            urls = installation.urls
        except (KeyError, ValueError) as error:
            raise SetupPlanError(f"{installation.settings} has no nats.urls.") from error
        ca_file = installation.ca_file
        options = ConnectionOptions(
            servers=urls,
            name="gateway-command",
            login=Login(credentials_file=installation.system_credentials),
            tls=ssl.create_default_context(cafile=ca_file) if ca_file else None,
        )

        async def connect_and_push() -> list[AccountPushed]:
            async with connected_to(options) as connection:
                return await push_accounts(connection, keys)

        return asyncio.run(connect_and_push()), len(urls)

    pushed, count = _run(send)
    responded = len({one.server for one in pushed})
    if as_json:
        print_json(
            [
                {"server": server, "account": account, "error": error or None}
                for server, account, error in pushed
            ]
        )
    else:
        print_table(["SERVER", "ACCOUNT", "RESULT*"], [[a, b, c or "taken"] for a, b, c in pushed])
        if responded < count:
            say(
                f"{responded} of {count} servers have responded. Repeat this when the others are "
                "back: by themselves they follow within two minutes."
            )
    if any(error for _, _, error in pushed):
        raise typer.Exit(1)


@app.command("check")
def check(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings file of the gateway. Default: the environment variables, and the "
            "defaults of settings.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at NATS servers with the gateway's settings, and say what to change.

    It tries what gateways and workers do, with a queue, a bucket and an account of its own, which
    it removes. It exits with 1 if something does not work; what works at a risk is a warning.
    """
    try:
        settings = read_settings(config)
    except SettingsError as error:
        raise usage(f"invalid settings: {error}") from None
    queue = settings.queue if settings.queue.backend == "nats" else None
    store = None
    if settings.store.backend == "nats":
        store = StoreBuckets(
            settings.store.bucket_prefix, settings.store.replicas, BUCKETS, IN_MEMORY
        )
    if queue is None and store is None:
        raise usage("These settings keep neither queue nor store on NATS.")
    checked = _run(lambda: asyncio.run(NatsCheck(settings.nats, queue, store).run()))
    if as_json:
        print_json(
            {
                "servers": [
                    {"name": name, "version": version} for name, version in checked.servers.items()
                ],
                "findings": [one._asdict() for one in checked.findings],
            }
        )
    else:
        _print_findings(checked)
    if any(one.level is Level.ERROR for one in checked.findings):
        raise typer.Exit(1)


def _print_findings(checked: Checked) -> None:
    servers = ", ".join(f"{name} ({version})" for name, version in sorted(checked.servers.items()))
    if servers:
        say(f"Servers: {servers}.")
    if not checked.findings:
        say("Nothing to change.")
        return
    print_table(
        ["LEVEL", "WHAT*", "PROBLEM*", "CHANGE*"],
        [[one.level.value, one.subject, one.problem, one.change] for one in checked.findings],
    )


_CERTIFICATES = "certificates"


def _given(
    certificate: Path | None, key: Path | None, authority: Path | None
) -> GivenCertificate | None:
    if certificate is not None and key is not None:
        return GivenCertificate(certificate, key, authority)
    if certificate or key or authority:
        raise SetupPlanError("--tls-certificate and --tls-key go together; --tls-ca needs both.")
    return None


def _run(task: Callable[[], Result]) -> Result:
    """Return the result of a task. Ends the program in one line if it fails."""
    # Failures are printed in one line; without a handler, Python would print the log as well.
    logging.getLogger("queueing").addHandler(logging.NullHandler())
    try:
        return task()
    except SetupPlanError as error:
        raise usage(str(error)) from None
    except ServersError as error:
        raise fail(CommandError(f"The servers cannot be asked: {error}.")) from None
    except OSError as error:
        raise fail(CommandError(f"{error.filename or 'file'}: {error.strerror}.")) from None
