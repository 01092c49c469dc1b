"""What both transports are made with: times, and how TLS is set up."""

import ssl
from dataclasses import asdict, dataclass

import httpx

from invocation_client.connection import ConnectionCore
from invocation_client.pings import PingSchedule


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Times of a transport, in seconds; raises `ValueError` if one is not above 0."""

    ping_interval_s: float | None
    ping_timeout_s: float
    keepalive_expiry_s: float | None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0:  # nor is NaN
                raise ValueError(f"{name} has to be above 0, not {value:g}")

    def new_core(self, now: float) -> ConnectionCore:
        """Return the core of a new connection."""
        pings = PingSchedule(self.ping_interval_s, self.ping_timeout_s, now)
        return ConnectionCore(pings, self.keepalive_expiry_s)


def tls_context(
    verify: ssl.SSLContext | str | bool,
    cert: str | tuple[str, str] | tuple[str, str, str] | None,
) -> ssl.SSLContext:
    """Return what `httpx.HTTPTransport` would use, with HTTP/2 as the only protocol."""
    context = httpx.create_ssl_context(verify=verify, cert=cert)
    context.set_alpn_protocols(["h2"])
    return context
