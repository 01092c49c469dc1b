"""Error replies of Redis and Valkey, and what they mean for a call.

Only the first word of an error is the same on all servers.
"""

from typing import NamedTuple


class RedisError(Exception):
    """A call to the server got no usable reply."""


class NotConnected(RedisError):
    """There is no connection to the server, or it was lost before the reply."""


class NoResponse(RedisError):
    """No reply arrived in time."""


class ReplyError(RedisError):
    """An error reply; ``kind`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.kind = text.partition(" ")[0]


class LoginRefused(RedisError):
    """The server does not know the user, or has another password for it."""


class Redirect(NamedTuple):
    """Where a slot is, from ``MOVED`` or ``ASK``; ``host`` is empty for the host that said it."""

    slot: int
    host: str
    port: int


PASSING = frozenset(
    {
        "NOSCRIPT",
        "LOADING",
        "BUSY",
        "READONLY",
        "MASTERDOWN",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MOVED",
        "ASK",
    }
)
"""Nothing was executed, and the same call can succeed a little later, perhaps elsewhere."""

NO_LONGER_MASTER = frozenset({"READONLY", "MASTERDOWN"})
"""Another server is, or soon will be, the master."""

OUT_OF_MEMORY = "OOM"
DENIED = "NOPERM"
REFUSED = frozenset({"WRONGPASS", "NOAUTH"})
"""The server does not know this login, or wants one."""


def is_passing(error: RedisError) -> bool:
    """Whether the same call can succeed a little later: nothing was executed."""
    return isinstance(error, ReplyError) and error.kind in PASSING


def is_denied(error: RedisError) -> bool:
    """Whether the login has no right to what was asked; in a script there is no word for it."""
    if not isinstance(error, ReplyError):
        return False
    text = str(error)
    return error.kind == DENIED or "ACL failure" in text or "executing the script can't" in text


def is_unknown(error: RedisError) -> bool:
    """Whether the server has no such command, as some that are rented have no ACL SETUSER."""
    return isinstance(error, ReplyError) and "unknown command" in str(error).lower()


def redirect_of(error: ReplyError) -> Redirect | None:
    """Return where to go after ``MOVED slot host:port`` or ``ASK slot host:port``."""
    if error.kind not in {"MOVED", "ASK"}:
        return None
    words = str(error).split(" ")
    if len(words) < 3 or not words[1].isdigit():
        return None
    host, _, port = words[2].rpartition(":")
    return Redirect(int(words[1]), host, int(port)) if port.isdigit() else None
