"""Addresses of Redis servers: ``redis[s]://[user[:password]@]host[:port]``."""

from urllib.parse import unquote, urlsplit, urlunsplit

from queueing.servers import Server

DEFAULT_PORT = 6379


class AddressError(Exception):
    """A URL names no Redis server. The message does not contain the URL: it may have a password."""


def parse_server(url: str) -> Server:
    """Return the server of a URL. Raises `AddressError`."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise AddressError("not a Redis server (write redis://host:port)") from error
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise AddressError("not a Redis server (write redis://host:port or rediss://host:port)")
    if parts.path.strip("/") not in {"", "0"}:
        raise AddressError("names another database than 0, the only one that there is in a Cluster")
    if parts.query or parts.fragment:
        raise AddressError("has options, which are not read (write redis://host:port)")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Server(parts.hostname, port, parts.scheme == "rediss", user, password)


def without_login(url: str) -> str:
    """Return a server's URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
