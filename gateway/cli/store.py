"""``gateway store``: exports the store to a file and imports it again.

Access to the store's buckets is the only permission that this needs.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.dump import export_store, import_store
from gateway.cli.errors import usage
from gateway.cli.options import JsonOption, check_readable
from gateway.cli.output import print_json, say
from gateway.cli.store_access import ConfigOption, StoreUrlOption, with_store
from gateway.domain.lifecycle import timestamp

app = typer.Typer(
    name="store",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Export and import the store.\n\n"
    "A dump holds functions, deployments, accounts, keys and sealed secrets.",
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Path of the dump.")]


@app.command("export")
def export(
    file: FileArgument,
    config: ConfigOption = None,
    store_url: StoreUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export everything except instances to FILE.

    Only you can read the file. Secrets remain sealed: to use them elsewhere, copy the gateway's
    master key file as well.
    """
    if file.is_dir() or not file.parent.is_dir():
        raise usage(f"{file} cannot be written: it is not a path of a file in a folder.")
    report = with_store(
        config, store_url, lambda store: export_store(store, file, timestamp(time.time()))
    )
    for name in report.unreadable:
        say(f"gateway: {name} cannot be read by this version of the program and was not exported.")
    if as_json:
        print_json({"exported": report.written, "unreadable": report.unreadable})
    else:
        say(f"{report.written} entries were exported to {file}.")
    if report.unreadable:
        raise typer.Exit(1)


@app.command("import")
def import_(
    file: FileArgument,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite entries of the store that differ.")
    ] = False,
    config: ConfigOption = None,
    store_url: StoreUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import FILE into the store. If an entry cannot be imported, nothing is written.

    Entries of the store that are not in FILE are kept. If the store is not empty, stop all gateways
    first.
    """
    check_readable(file)
    report = with_store(config, store_url, lambda store: import_store(store, file, replace=replace))
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
        f"{report.written} entries were written, of which {report.replaced} replaced others; "
        f"{report.unchanged} were unchanged."
    )
