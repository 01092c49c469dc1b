"""Where a request goes, and how long its caller waits: read from an `httpx.Request`. Pure."""

from typing import NamedTuple, Self

import httpx

_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host as ASCII without brackets, and port of a server.

    ``tls_name`` is what its certificate is for, empty for ``host``.
    """

    scheme: str
    host: str
    port: int
    tls_name: str = ""

    @classmethod
    def of(cls, url: httpx.URL) -> Self:
        """Return the origin of ``url``.

        Raises `httpx.UnsupportedProtocol` if its scheme is neither ``http`` nor ``https``.
        """
        if url.scheme not in _PORTS:
            raise httpx.UnsupportedProtocol(f"no transport for the scheme {url.scheme!r}")
        return cls(url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])

    @classmethod
    def called_by(cls, request: httpx.Request) -> Self:
        """Return the origin of a request, with its extension ``sni_hostname``. Raises as `of`."""
        return cls.of(request.url)._replace(tls_name=request.extensions.get("sni_hostname") or "")

    @property
    def is_secure(self) -> bool:
        """Whether the server speaks TLS."""
        return self.scheme == "https"

    @property
    def certified_name(self) -> str:
        """The name that its certificate must be for, sent in the TLS handshake."""
        return self.tls_name or self.host

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class CallTimeouts(NamedTuple):
    """What a call waits for at most, in seconds; None: without an end."""

    connect_s: float | None
    read_s: float | None
    write_s: float | None

    @classmethod
    def of(cls, request: httpx.Request) -> Self:
        """Return the timeouts of ``request``, which `httpx.Timeout` puts into its extensions."""
        found = request.extensions.get("timeout", {})
        return cls(found.get("connect"), found.get("read"), found.get("write"))
