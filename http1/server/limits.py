"""Bounds of one HTTP server, with the reason for each number."""

from dataclasses import dataclass

from wire.deadlines import VANISHED_S


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds per connection, and on the number of connections.

    A time limit never ends early. It may end late, by up to two checks: checks come once a second,
    or more often when a limit is below two seconds.
    """

    max_request_line_bytes: int = 16_384
    """Maximum bytes of a request line; a longer one gets 414. nginx takes 8 KiB, but query strings
    carry prompts."""
    max_header_bytes: int = 65_536
    """Maximum bytes of all header lines together; more get 431."""
    max_headers: int = 128
    """Maximum number of header lines; more get 431."""
    head_timeout_s: float = 10.0
    """Maximum time from a request's first byte to the end of its head; then the client gets 408 and
    the connection is closed."""
    body_stall_s: float = 60.0
    """Maximum time without a byte of an incomplete body; then the client gets 408 and the
    connection is closed."""
    write_stall_s: float = 60.0
    """Maximum time for which the client reads nothing of what waits for it; then the connection is
    reset."""
    idle_timeout_s: float = 75.0
    """Maximum time without a request on an open connection; then it is closed. Above a load
    balancer's usual 60 s."""
    vanished_s: float = VANISHED_S
    """Time without a sign of life from the peer's machine; then the connection is reset."""
    linger_s: float = 5.0
    """Time for which the client's further bytes are read and discarded after an early response, so
    that the client can read the response (RFC 9112 §9.6)."""
    linger_bytes: int = 16_777_216
    """Maximum number of bytes that are discarded then."""
    max_connections: int = 20_000
    """Maximum number of open connections; a further one gets 503 and is closed."""
    max_pipelined: int = 64
    """Maximum number of requests of one connection served in a row before other connections."""
    high_water_bytes: int = 65_536
    """Number of bytes that may wait in memory per connection and direction before the sender is
    paused."""
