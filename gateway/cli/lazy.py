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
    "apply": "gateway.cli.apply.command",
    "functions": "gateway.cli.functions",
    "deployments": "gateway.cli.deployments",
    "invoke": "gateway.cli.invoke",
    "instances": "gateway.cli.instances",
    "workers": "gateway.cli.workers",
    "logs": "gateway.cli.logs",
    "queues": "gateway.cli.queues",
    "gpus": "gateway.cli.gpus",
    "assets": "gateway.cli.assets",
    "keys": "gateway.cli.keys",
    "webhooks": "gateway.cli.webhooks",
    "bootstrap": "gateway.cli.bootstrap",
    "nats": "gateway.cli.nats",
    "store": "gateway.cli.store",
    "config": "gateway.cli.config",
}
"""Name and module of each group; the module's ``app`` is the group."""


_VERSION = "--version"


class LazyGroup(TyperGroup):
    """The commands of the program: those added to it directly, then `GROUPS`."""

    # Contexts and commands are those of click, which typer bundles under another name.

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = GROUPS.get(cmd_name)
        if module is None:
            command: Any = super().get_command(ctx, cmd_name)
        else:
            command = typer.main.get_command(import_module(module).app)
            # From here on a command may have something to clean up.
            interrupts.raise_again()
            command.name = cmd_name
        if command is not None:
            self._share_version(command)
        return command

    def _share_version(self, command: Any) -> None:
        """Give the command, and those below it, the option ``--version`` of the program."""
        version = next(param for param in self.params if _VERSION in param.opts)
        if not any(_VERSION in param.opts for param in command.params):
            command.params.append(version)
        for below in getattr(command, "commands", {}).values():
            self._share_version(below)
