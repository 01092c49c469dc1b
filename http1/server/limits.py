"""Bounds of one HTTP server, with the reason for each number."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds per connection, and on the number of connections.

    A time limit never ends early. It may end late, by up to two checks: checks come once a second,
    or more often when a limit is below two seconds.
    """

    max_request_line_bytes: int = 16_384
    """Beyond it 414. nginx takes 8 KiB, but query strings carry prompts."""
    max_header_bytes: int = 65_536
    """All header lines together; beyond it 431."""
    max_headers: int = 128
    """Beyond it 431."""
    head_timeout_s: float = 10.0
    """From a request's first byte to the end of its head; then 408 and closed."""
    body_stall_s: float = 60.0
    """The client sends nothing while its body is waited for; then 408 and closed."""
    write_stall_s: float = 60.0
    """The client reads nothing of what waits for it; then reset."""
    idle_timeout_s: float = 75.0
    """No request on an open connection; then closed. Above a load balancer's usual 60 s."""
    linger_s: float = 5.0
    """After an early response, how long the client's further bytes are read and discarded, so that
    the client can read the response (RFC 9112 §9.6)."""
    linger_bytes: int = 16_777_216
    """How many bytes are discarded at most."""
    max_connections: int = 20_000
    """A connection beyond it gets 503 and is closed."""
    max_pipelined: int = 64
    """Requests of one connection served in one turn of the event loop, before other connections."""
    high_water_bytes: int = 65_536
    """Bytes that may wait in memory per connection and direction before the sender is paused."""
