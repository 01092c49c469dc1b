"""Errors of commands, and how a command ends with one."""

import typer


class CommandError(Exception):
    """A command failed; the message is shown to the user in one line."""


class ApiError(CommandError):
    """The API responded with an error. ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(CommandError):
    """The API did not respond, or is unavailable (503). A later attempt may succeed."""


def fail(error: CommandError) -> typer.Exit:
    """Print a failure and return the exception that ends the program with exit code 1."""
    return _exit(str(error), 1)


def usage(message: str) -> typer.Exit:
    """Print a usage error and return the exception that ends the program with exit code 2."""
    return _exit(message, 2)


def printable(text: str) -> str:
    """Return ``text`` as one line without characters that control a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _exit(message: str, code: int) -> typer.Exit:
    typer.echo(f"gateway: {printable(message)}", err=True)
    return typer.Exit(code)
