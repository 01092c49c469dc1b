"""``gateway logs``: prints the logs of instances that run as processes of this machine.

The provisioner of local processes keeps them as files until the instance ends; for other instances
this command says where they run.
"""

import os
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from gateway.cli.api_client import ApiClient, run
from gateway.cli.errors import ApiError, CommandError, fail, usage
from gateway.cli.lookup import VersionName, version_name
from gateway.cli.options import (
    DEFAULT_URL,
    DeployedVersionArgument,
    FunctionArgument,
    KeyOption,
    UrlOption,
    api_target,
)
from gateway.cli.output import print_text, say
from gateway.settings import read_settings
from runtime.settings import SettingsError
from wire.ids import parse_uuid

MAX_BYTES = 16 << 20
"""At most this much of the end of a file is read."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Logged(NamedTuple):
    """The instances of a version, and why others could not run."""

    instances: list[dict[str, Any]]
    failures: list[str]


@app.command()
def logs(  # noqa: PLR0913 - one argument per option
    function: FunctionArgument,
    version: DeployedVersionArgument = None,
    instance: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANCE",
            help="Only this instance: its id, from 'gateway instances'. Default: all.",
        ),
    ] = None,
    worker: Annotated[
        bool,
        typer.Option("--worker", help="The worker agent's log instead of the inference server's."),
    ] = False,
    lines: Annotated[
        int,
        typer.Option(metavar="N", help="Number of lines of each instance, the last ones.", min=1),
    ] = 100,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings file of the gateway on this machine, for provision.folder. Default: the "
            "environment variables, and the defaults of settings.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the instances; for 'gateway dev' it is DIR/instances, with the DIR "
            "that it prints after 'logs'. Default: provision.folder.",
        ),
    ] = None,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
) -> None:
    """Print the logs of a function's instances.

    If instances could not start, their errors are printed too. Only instances that the gateway runs
    as processes of this machine have logs here. They are kept until the instance ends.
    """
    target = api_target(api_url, api_key)
    named = version_name(function, version)
    where = folder or _configured_folder(config)
    if instance is not None and parse_uuid(instance.encode()) is None:
        raise usage(f"{instance} is not an id: ids are UUIDs.")
    logged = run(target, lambda api: _read(api, named))
    for failure in logged.failures:
        for line in failure.splitlines():
            say(line)
    chosen = [one for one in logged.instances if instance in (None, one["instanceId"])]
    if not chosen:
        what = f"no instance {instance}" if instance else "no instances"
        raise fail(CommandError(f"{function} has {what}: logs are kept until an instance ends."))
    found = [_print_log(one, where, worker, lines) for one in chosen]
    if not any(found):
        raise typer.Exit(1)


def _configured_folder(config: Path | None) -> Path:
    try:
        return read_settings(config).provision.folder
    except SettingsError as error:
        raise usage(f"invalid settings: {error}") from None


async def _read(api: ApiClient, named: VersionName) -> Logged:
    found = await named.find(api, is_deployed=True)
    instances = (await api.get(found.path))["function"].get("activeInstances") or []
    try:
        deployment = (await api.get(f"deployments/{found.path}"))["deployment"]
    except ApiError as error:
        if error.status not in {403, 404}:
            raise
        deployment = {}
    failures = [
        f"instance {info.get('instanceId', '')} failed: {info['error']}"
        for info in deployment.get("healthInfo") or ()
    ]
    return Logged(instances, failures)


def _print_log(instance: dict[str, Any], folder: Path, worker: bool, lines: int) -> bool:
    """Print the end of an instance's log, or say where it runs. Return whether it is here."""
    instance_id = str(instance["instanceId"])
    log = _find_log(folder, instance_id, "worker" if worker else "inference")
    if log is None:
        say(
            f"gateway: instance {instance_id} runs in backend {instance['backend']} and has no "
            f"logs in {folder}. If 'gateway dev' runs it, give --folder DIR/instances, where DIR "
            "is the folder that it printed after 'logs'; else read them where it runs."
        )
        return False
    say(f"instance {instance_id}")
    for line in _last_lines(log, lines):
        print_text(line)
    return True


def _find_log(folder: Path, instance_id: str, name: str) -> Path | None:
    """Return an instance's log, in the folder that the instance has below ``folder``."""
    if parse_uuid(instance_id.encode()) is None:
        return None
    return next(iter(folder.glob(f"*/{instance_id}/{name}.log")), None)


def _last_lines(log: Path, count: int) -> list[str]:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-count:]
