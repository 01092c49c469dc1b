"""Command groups that are imported only when they are used.

Tables, HTTP client and store take longer to import than the rest of the program, and
`gateway serve` needs none of them.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from runtime import interrupts

GROUPS: Mapping[str, str] = {
    "dev": "gateway.dev.command",
    "functions": "gateway.cli.functions",
    "deployments": "gateway.cli.deployments",
    "invoke": "gateway.cli.invoke",
    "instances": "gateway.cli.instances",
    "logs": "gateway.cli.logs",
    "queues": "gateway.cli.queues",
    "gpus": "gateway.cli.gpus",
    "keys": "gateway.cli.keys",
    "bootstrap": "gateway.cli.bootstrap",
    "store": "gateway.cli.store",
    "config": "gateway.cli.config",
}
"""Name and module of each group; the module's ``app`` is the group."""


class LazyGroup(TyperGroup):
    """The commands of the program: those added to it directly, then `GROUPS`."""

    # Contexts and commands are those of click, which typer bundles under another name.

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = GROUPS.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        command = typer.main.get_command(import_module(module).app)
        # From here on a command may have something to clean up.
        interrupts.raise_again()
        command.name = cmd_name
        return command
