"""The Lua scripts in `lua/`: one call for each transition of a request, each atomic.

``common.lua`` is in front of each. A script may begin with a full memory unless it adds something:
otherwise a full queue could not be drained. Servers forget scripts when they restart, so they are
loaded on every connection.
"""

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

_ADDING = frozenset({"publish", "ensure"})
_READING = frozenset({"position", "state", "missing"})


class Script(NamedTuple):
    """One script: its text, and the name under which servers know it."""

    name: str
    text: bytes
    digest: bytes


@cache
def script(name: str) -> Script:
    """Return the script of ``lua/{name}.lua``."""
    folder = files("queueing.redis") / "lua"
    flags = "" if name in _ADDING else " flags=allow-oom"
    if name in _READING:
        flags = " flags=no-writes"
    common = (folder / "common.lua").read_text()
    body = (folder / f"{name}.lua").read_text()
    text = f"#!lua{flags}\n{common}{body}".encode()
    return Script(name, text, sha1(text, usedforsecurity=False).hexdigest().encode())


GATEWAY = (
    "publish",
    "withdraw",
    "position",
    "state",
    "look",
    "missing",
    "ensure",
    "purge",
    "remove",
    "lose",
    "send",
)
"""The scripts of a gateway process."""

WORKER = ("bind", "work", "nak", "due", "renew", "unregister")
"""The scripts of a worker."""
