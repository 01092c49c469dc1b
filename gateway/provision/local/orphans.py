"""Ends instances that no gateway process has, without a gateway: for `gateway dev`, at its end."""

import logging
from pathlib import Path

from gateway.provision.local.folder import RUNNING, take_all
from runtime.events import emit

_log = logging.getLogger("gateway.provision")


def kill_orphans(root: Path) -> None:
    """Kill all instances below ``root`` that no gateway process has, and delete their folders."""
    for folder in take_all(root / RUNNING):
        killed = folder.kill_all()
        if killed:
            emit(_log, "provision.orphans_killed", logging.WARNING, processes=sorted(killed))
        folder.remove()
