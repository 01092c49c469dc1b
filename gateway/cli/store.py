"""``gateway store``: everything that is kept, into a file and back, straight from the store.

Whoever may read and write the buckets may do this; nothing else is asked.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.dump import export_store, import_store
from gateway.cli.options import JsonOption
from gateway.cli.output import print_json, say
from gateway.cli.store_access import ConfigOption, NatsUrlOption, with_store
from gateway.domain.lifecycle import timestamp

app = typer.Typer(
    name="store",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Write functions, deployments, accounts, keys and sealed secrets into a file, and back.",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE")]


@app.command("export")
def export(
    file: FileArgument,
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything but instances into FILE, which only you can read.

    Secrets stay sealed: to use them elsewhere, keep the gateway's key file as well.
    """
    report = with_store(
        config, nats_url, lambda store: export_store(store, file, timestamp(time.time()))
    )
    for name in report.unreadable:
        say(f"gateway: {name} cannot be read by this program and is not in the file.")
    if as_json:
        print_json({"exported": report.written, "unreadable": report.unreadable})
    else:
        say(f"{report.written} entries are in {file}.")
    if report.unreadable:
        raise typer.Exit(1)


@app.command("import")
def import_(
    file: FileArgument,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over entries that are there and differ.")
    ] = False,
    config: ConfigOption = None,
    nats_url: NatsUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what is in FILE into the store: all of it, or nothing when it cannot be.

    What is in the store and not in the file stays. Into a store that has something in it, import
    while no gateway runs.
    """
    report = with_store(config, nats_url, lambda store: import_store(store, file, replace=replace))
    if as_json:
        print_json(
            {
                "written": report.written,
                "replaced": report.replaced,
                "unchanged": report.unchanged,
            }
        )
        return
    say(
        f"{report.written} entries are written, {report.replaced} of them over others; "
        f"{report.unchanged} were there already."
    )
