"""How a command ends when it cannot do what was asked."""

import typer


class CommandError(Exception):
    """What is told to the user, in one line."""


class Refused(CommandError):
    """The API answered with an error. ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(CommandError):
    """The API gave no answer, or cannot serve for the moment: later it may."""


def fail(error: CommandError) -> typer.Exit:
    """Tell what went wrong and return the exception that ends the program."""
    typer.echo(f"gateway: {printable(str(error))}", err=True)
    return typer.Exit(1)


def usage(message: str) -> typer.Exit:
    """Tell what is wrong with the command line and return the exception that ends the program."""
    typer.echo(f"gateway: {printable(message)}", err=True)
    return typer.Exit(2)


def printable(text: str) -> str:
    """Return ``text`` as one line without what would control a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()
