"""The URL at which a function is invoked, from the URL of the API (`docs/wire.md` §1).

API and functions are at ``api.DOMAIN`` and ``FUNCTION_ID.invocation.DOMAIN``, or at one address. An
IP address of this machine becomes ``localhost``, below which every name leads here.
"""

from urllib.parse import urlsplit

_LOCAL = frozenset({"127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - compared, not bound to


def invocation_url(api_url: str, function_id: str, path: str) -> str:
    """Return the URL to invoke ``path`` of a function with."""
    parts = urlsplit(api_url)
    host = parts.hostname or ""
    domain = "localhost" if host in _LOCAL else host.removeprefix("api.")
    port = f":{parts.port}" if parts.port is not None else ""
    begin = "" if path.startswith("/") else "/"
    return f"{parts.scheme}://{function_id}.invocation.{domain}{port}{begin}{path}"
