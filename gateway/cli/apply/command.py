"""``gateway apply``: reads files, and creates, changes and removes functions accordingly."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer

from gateway.cli.api_client import ApiClient, run
from gateway.cli.apply.execution import (
    Execution,
    FunctionResult,
    read_versions,
    result_document,
)
from gateway.cli.apply.function_documents import read_function
from gateway.cli.apply.planning import (
    SALT_BYTES,
    WAITS,
    ApplyPlan,
    FunctionPlan,
    MemberChange,
    PlanError,
    PlanOptions,
    WantedFunction,
    make_plan,
)
from gateway.cli.apply.yaml_documents import MAX_BYTES, FileError, FileProblem, read_documents
from gateway.cli.errors import CommandError, printable, usage
from gateway.cli.options import DEFAULT_URL, JsonOption, KeyOption, UrlOption, api_target
from gateway.cli.output import print_json, print_text, say

EXIT_CHANGES = 3
"""Exit code of --dry-run if there is something to change."""
MAX_FUNCTIONS = 1000
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
"""Of the files of a folder."""

_is_set_name = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def apply(  # noqa: PLR0913 - one argument per option
    files: Annotated[
        list[Path],
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="YAML file of functions, a folder of such files, or - for standard input; "
            "repeatable. Required.",
        ),
    ],
    set_name: Annotated[
        str,
        typer.Option(
            "--set",
            metavar="SET",
            help="Name of the set of functions that the files are. Only functions of this set are "
            "changed.",
        ),
    ] = "default",
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Delete functions of the set that are not in the files, and replaced versions.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help=f"Print what would be done. Exit code {EXIT_CHANGES} if that is anything.",
        ),
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print each member that changes, before and after.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait until all are ACTIVE with their numbers, and what was undeployed is gone.",
        ),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Longest time that one step waits.", min=1),
    ] = 900.0,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make functions what files say: create, change, deploy, scale and undeploy them.

    Applied again, the same files change nothing, and an interrupted command is continued. What
    cannot be changed makes a new version, which is ACTIVE before the old one is undeployed.
    Exit code 1: something failed; 2: a file or an option is wrong, and nothing was done.
    """
    target = api_target(api_url, api_key)
    if not _is_set_name(set_name):
        raise usage("--set takes 1 to 64 letters, digits, - and _.")
    wanted = _read(files)
    options = PlanOptions(set_name, prune, wait, lambda: os.urandom(SALT_BYTES))

    async def carry_out(api: ApiClient) -> tuple[ApplyPlan, list[FunctionResult]]:
        try:
            plan = make_plan(wanted, await read_versions(api), options)
        except PlanError as error:
            raise CommandError(str(error)) from None
        if not as_json:
            _print_plan(plan, with_changes=diff)
        if dry_run:
            return plan, [FunctionResult(each) for each in (*plan.functions, *plan.removals)]
        return plan, await Execution(api, timeout, say).run(plan)

    plan, results = run(target, carry_out)
    if as_json:
        print_json([result_document(result) for result in results])
    for name in plan.left:
        say(f"{name} is of the set and not in the files: --prune deletes it.")
    failed = [result.plan.name for result in results if result.error]
    if failed:
        say(f"gateway: failed: {', '.join(failed)}")
        raise typer.Exit(1)
    if dry_run and plan.changes_anything:
        raise typer.Exit(EXIT_CHANGES)


def _read(files: Sequence[Path]) -> list[WantedFunction]:
    """Return the functions of all files. Ends the program with all problems of all documents."""
    wanted: dict[str, WantedFunction] = {}
    problems: list[FileProblem] = []
    for file in _expand(files):
        try:
            documents = read_documents(_content(file), str(file))
        except FileError as error:
            problems += error.problems
            continue
        folder = Path() if str(file) == "-" else file.parent
        for document in documents:
            try:
                function = read_function(document, folder)
            except FileError as error:
                problems += error.problems
                continue
            if function.name in wanted:
                where = wanted[function.name].where
                problems.append(document.problem(("name",), f"{function.name} is at {where} too"))
            wanted[function.name] = function
    if problems:
        _refuse(problems)
    if len(wanted) > MAX_FUNCTIONS:
        raise usage(f"The files have {len(wanted)} functions; at most {MAX_FUNCTIONS} are applied.")
    if not wanted:
        # An empty pipe or a wrong folder would, with --prune, delete everything.
        raise usage("The files have no function.")
    return list(wanted.values())


def _expand(files: Iterable[Path]) -> Iterator[Path]:
    """Yield files, and the files of folders by name."""
    for file in files:
        if str(file) != "-" and file.is_dir():
            yield from sorted(path for path in file.iterdir() if path.suffix in SUFFIXES)
        else:
            yield file


def _content(file: Path) -> bytes:
    """Return the content of a file, or its first bytes if it is too large."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise usage(f"{file} cannot be read: {error.strerror}.") from None


def _refuse(problems: Iterable[FileProblem]) -> NoReturn:
    for problem in problems:
        say(f"gateway: {problem}")
    raise typer.Exit(2)


def _print_plan(plan: ApplyPlan, *, with_changes: bool) -> None:
    for each in (*plan.functions, *plan.removals):
        if not each.steps:
            print_text(f"{each.name}: unchanged")
        for line in _lines(each, with_changes=with_changes):
            print_text(f"{each.name}: {line}")


def _lines(plan: FunctionPlan, *, with_changes: bool) -> Iterator[str]:
    for step in plan.steps:
        version = step.ref.version_id if step.ref is not None else ""
        yield f"{step.kind.value} {version}".rstrip() if step.kind not in WAITS else step.kind.value
        if with_changes:
            yield from (_change_line(change) for change in step.changes)


def _change_line(change: MemberChange) -> str:
    if change.before is None:
        return f"    + {change.path}: {_text(change.after)}"
    if change.after is None:
        return f"    - {change.path}: {_text(change.before)}"
    return f"    ~ {change.path}: {_text(change.before)} -> {_text(change.after)}"


def _text(value: object) -> str:
    return printable(orjson.dumps(value).decode())
