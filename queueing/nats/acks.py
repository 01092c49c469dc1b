"""Acknowledgements of leases, and the numbers in the acknowledgement subject.

The reply subject of every message from a JetStream consumer is the subject to which the
acknowledgement is published. It contains the numbers of this delivery (nats-server, "ADR-15
JetStream subjects"):

    $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>
    $JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.…  with at least eleven tokens
"""

ACK = b"+ACK"
NAK = b"-NAK"
IN_PROGRESS = b"+WPI"
TERM = b"+TERM"

_SHORT_TOKENS = 9
_LONG_TOKENS = 11


def first_ack_subject(stream: str, consumer: str) -> bytes:
    """Return how the short form of the subject begins at the first delivery of a message."""
    return f"$JS.ACK.{stream}.{consumer}.1.".encode()


def deliveries_of(subject: bytes) -> int:
    """Return how often the message has been delivered, from 1 on.

    Raises ValueError when ``subject`` is not an acknowledgement subject.
    """
    tokens = subject.split(b".")
    return int(tokens[_first_number(tokens)])


def sequences_of(subject: bytes) -> tuple[int, int]:
    """Return the sequence of the message in its stream, and that of this delivery.

    Raises ValueError when ``subject`` is not an acknowledgement subject.
    """
    tokens = subject.split(b".")
    first = _first_number(tokens)
    return int(tokens[first + 1]), int(tokens[first + 2])


def nak_after(delay_s: float) -> bytes:
    """Return the acknowledgement that gives a lease back, for redelivery after ``delay_s``."""
    return b'-NAK {"delay":%d}' % int(delay_s * 1e9) if delay_s > 0 else NAK


def stored_at_ns_of(subject: bytes) -> int:
    """Return when the server stored the message, by its clock, in Unix nanoseconds.

    0 when ``subject`` is not an acknowledgement subject.
    """
    return _optional_number(subject, 3)


def _first_number(tokens: list[bytes]) -> int:
    count = len(tokens)
    if count == _SHORT_TOKENS:
        return 4
    if count >= _LONG_TOKENS:
        return 6
    raise ValueError(f"not an acknowledgement subject: {b'.'.join(tokens)!r}")


def pending_of(subject: bytes) -> int:
    """Return how many messages waited behind this one when it was delivered.

    0 when ``subject`` is not an acknowledgement subject.
    """
    return _optional_number(subject, 4)


def _optional_number(subject: bytes, offset: int) -> int:
    """Return the number ``offset`` tokens after the first one, 0 if there is none."""
    tokens = subject.split(b".")
    if len(tokens) != _SHORT_TOKENS and len(tokens) < _LONG_TOKENS:
        return 0
    number = tokens[_first_number(tokens) + offset]
    return int(number) if number.isdigit() else 0
