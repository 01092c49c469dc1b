"""What every command's help says, and that every command tells the version."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from gateway.cli.program import app as gateway
from queueing.nats.accounts.jwt import Role, Signer
from runtime.version import program_version
from worker_agent.app.program import app as worker_agent


def commands(command: Any, name: str, parent: Any = None) -> Iterator[Any]:
    """Yield the context of a command and of all below it."""
    context = command.context_class(command, info_name=name, parent=parent)
    yield context
    if hasattr(command, "list_commands"):
        for below in command.list_commands(context):
            yield from commands(command.get_command(context, below), below, context)


ALL = [
    *commands(typer.main.get_command(gateway), "gateway"),
    *commands(typer.main.get_command(worker_agent), "worker-agent"),
]


def test_every_option_is_required_or_says_its_default() -> None:
    silent = []
    for context in ALL:
        for param in context.command.params:
            shown = param.get_help_record(context)
            is_flag = getattr(param, "is_flag", False)
            if not is_flag and not re.search("[Rr]equired|[Dd]efault", shown[1]):
                silent.append(f"{context.command_path} {shown}")
    assert silent == []


def test_the_line_for_nats_servers_has_a_login_and_not_the_seed(tmp_path: Path) -> None:
    seed = tmp_path / "operator.nk"
    seed.write_text(Signer.of(Role.OPERATOR, bytes(32)).seed + "\n")
    shown = CliRunner().invoke(gateway, ["config", "nats-callout", str(seed)])
    assert shown.exit_code == 0
    assert shown.stdout.startswith("default_sentinel: eyJ")
    assert seed.read_text().strip() not in shown.stdout
    seed.write_text("nonsense")
    assert CliRunner().invoke(gateway, ["config", "nats-callout", str(seed)]).exit_code != 0


def test_every_command_has_the_version_of_the_program() -> None:
    run = CliRunner()
    for context in ALL[:-1]:
        words = context.command_path.split()[1:]
        shown = run.invoke(gateway, [*words, "--version"])
        assert (shown.exit_code, shown.stdout) == (0, f"gateway {program_version()}\n"), words
