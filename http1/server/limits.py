"""What one HTTP edge allows a peer, with the reason for each number."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Bounds per connection, and on their number. Times are never cut short; they may run long.

    How long: by up to two of the edge's checks, which come once a second (more often when a limit
    is below two seconds).
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
    """The client takes no byte of what waits for it; then reset."""
    idle_timeout_s: float = 75.0
    """No request on an open connection; then closed. Above a load balancer's usual 60 s."""
    linger_s: float = 5.0
    """How long what a client still sends is thrown away after an early answer, so that it can read
    the answer (RFC 9112 §9.6)."""
    linger_bytes: int = 16_777_216
    """How much of it, at most."""
    max_connections: int = 20_000
    """Beyond it a connection is answered 503 and closed."""
    max_pipelined: int = 64
    """Requests of one connection answered in one turn of the loop before others have theirs."""
    high_water_bytes: int = 65_536
    """What may wait in memory per connection and direction before the sender is held up."""
