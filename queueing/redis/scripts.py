"""The Lua scripts in `lua/`: one call for each transition of a request, each atomic.

A script names in its first line which of ``lua/parts/`` are in front of it, as few as it needs:
each function of them costs a moment in every call. A script may begin with a full memory unless it
adds something: otherwise a full queue could not be drained. Servers forget scripts when they
restart, so they are loaded on every connection.
"""

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

_ADDING = frozenset({"publish", "ensure"})
_WITH = "-- with "
_HEAD = "local q, call = KEYS[1], redis.call\n"
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
    body = (folder / f"{name}.lua").read_text()
    first, _, _ = body.partition("\n")
    needed = first.removeprefix(_WITH).split(", ") if first.startswith(_WITH) else []
    parts = [(folder / "parts" / f"{part}.lua").read_text() for part in needed]
    text = "".join([f"#!lua{flags}\n", _HEAD, *parts, body]).encode()
    return Script(name, text, sha1(text, usedforsecurity=False).hexdigest().encode())


GATEWAY = (
    "publish",
    "find",
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
