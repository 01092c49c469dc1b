"""`gateway serve`: from its options to the exit code, with one process or several."""

import logging
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from gateway.app import tls
from gateway.app.process import serve as serve_process
from gateway.app.supervisor import Supervisor, bind_for
from gateway.settings import GatewaySettings, read_settings
from http1.server.listener import ListenError
from runtime import lifecycle, logs
from runtime.lifecycle import EXIT_UNUSABLE
from runtime.plain_options import plain_options
from runtime.settings import SettingsError
from runtime.version import emit_starting

MAX_PROCESSES = 256

_log = logging.getLogger("gateway.supervisor")


class ServeOptions(NamedTuple):
    """The options of the command; `None` for one that is not given."""

    config: Path | None = None
    processes: int | None = None
    roles: str | None = None


def read_options(words: Sequence[str]) -> ServeOptions | None:
    """Return the options of a plain command line, `None` for any other (`gateway.cli.program`)."""
    found = plain_options(words, ServeOptions._fields)
    if found is None:
        return None
    config = Path(found["config"]) if "config" in found else None
    processes = found.get("processes", "1")
    is_number = processes.isascii() and processes.isdigit()
    if not is_number or not 1 <= int(processes) <= MAX_PROCESSES:
        return None
    if config is not None and not config.exists():
        return None
    count = int(processes) if "processes" in found else None
    return ServeOptions(config, count, found.get("roles"))


def serve(options: ServeOptions) -> NoReturn:
    """Serve until the stop signal; exit with the code of the process."""
    logging.captureWarnings(capture=True)
    try:
        roles = {"GATEWAY_ROLES": options.roles} if options.roles else {}
        settings = read_settings(options.config, roles)
        tls.check(settings.tls)
    except SettingsError as error:
        _refuse(f"invalid settings:\n{error}")
    try:
        tls.open_certificates(settings.tls)
    except OSError as error:
        _refuse(str(error))
    count = options.processes or settings.edge.processes
    logs.setup(settings.log.level, json=settings.log.format == "json")
    try:
        sockets = bind_for((*settings.tls.listen, *settings.edge.listen), count)
    except ListenError as error:
        _refuse(str(error))
    if count == 1:
        sys.exit(_run_one(settings, 0, sockets[0]))
    emit_starting(_log, "gateway.starting", processes=count)
    run = partial(_run_one, settings, shares_addresses=True)
    sys.exit(Supervisor(run, sockets).supervise())


def _run_one(
    settings: GatewaySettings,
    index: int,
    sockets: list[socket.socket],
    *,
    shares_addresses: bool = False,
) -> int:
    run = partial(serve_process, settings, index, sockets, shares_addresses=shares_addresses)
    return lifecycle.run(run)


def _refuse(message: str) -> NoReturn:
    print(f"gateway: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_UNUSABLE)
