"""The version of the installed programs, and where each tells it."""

import logging
import os
import sys
from functools import cache
from pathlib import Path

from runtime.events import emit
from runtime.metrics import MetricRegistry

_FOLDERS = "invocation_gateway-*.dist-info"
"""What an installed package has beside it (Python's "Recording installed projects")."""
UNKNOWN = "unknown"


@cache
def program_version() -> str:
    """Return the version of the package, `UNKNOWN` if the programs run without being installed.

    From the name of a folder: ``importlib.metadata`` would load 2 MiB of modules for it.
    """
    for folder in sys.path:
        for found in Path(folder).glob(_FOLDERS):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return UNKNOWN


def emit_starting(log: logging.Logger, event: str, **fields: object) -> None:
    """Write the first line of a process: which program it is, and what is its own."""
    python = sys.version.partition(" ")[0]
    emit(log, event, version=program_version(), python=python, pid=os.getpid(), **fields)


def show_version(registry: MetricRegistry, program: str) -> None:
    """Show the version as the metric ``<program>_build_info``, whose value is always 1."""
    python = ".".join(map(str, sys.version_info[:3]))
    family = registry.gauge(
        f"{program}_build_info", "Version of the program and of Python", ("version", "python")
    )
    family.child(program_version(), python).value = 1
