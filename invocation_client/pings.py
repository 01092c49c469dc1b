"""When a connection has to send a PING, and when it is dead (RFC 9113 §6.7).

Any byte of the peer shows that the path works in both directions, as an ack does: it may come late
behind much data. A dead peer is found within interval and timeout after its last byte. Pure.
"""


class PingSchedule:
    """The PINGs of one connection. ``interval_s`` is None: none is ever sent.

    Only a connection with open streams asks; times are seconds of any monotonic clock.
    """

    def __init__(self, interval_s: float | None, timeout_s: float, now: float) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._heard_at = now
        self._sent_at: float | None = None

    @property
    def next_at(self) -> float | None:
        """When to ask again, None for never."""
        if self._interval_s is None:
            return None
        if self._sent_at is not None:
            return self._sent_at + self._timeout_s
        return self._heard_at + self._interval_s

    def heard(self, now: float) -> None:
        """Bytes of the peer have come."""
        self._heard_at = now
        self._sent_at = None

    def sent(self, now: float) -> None:
        """A PING was sent."""
        self._sent_at = now

    def is_due(self, now: float) -> bool:
        """Whether a PING has to be sent."""
        return self._sent_at is None and self.next_at is not None and now >= self.next_at

    def is_unanswered(self, now: float) -> bool:
        """Whether a PING was sent in vain: the connection is dead."""
        return self._sent_at is not None and now >= self._sent_at + self._timeout_s
