"""What the broker says about a lease in its acknowledgement subject: parsing only.

Every message from a JetStream consumer names in its reply subject where the acknowledgement goes,
and there the numbers of this delivery stand (nats-server, "ADR-15 JetStream subjects"):

    $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>
    $JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.…  with at least eleven tokens
"""

from typing import NamedTuple

ACK = b"+ACK"
HAND_BACK = b"-NAK"
PROGRESS = b"+WPI"
REJECT = b"+TERM"

_SHORT_TOKENS = 9
_LONG_TOKENS = 11


class Delivery(NamedTuple):
    """One delivery of one message; ``deliveries`` counts from 1."""

    deliveries: int
    sequence: int
    pending: int


def parse_ack_subject(subject: bytes) -> Delivery:
    """Return the numbers in an acknowledgement subject. Raises ``ValueError`` on any other."""
    tokens = subject.split(b".")
    count = len(tokens)
    if count == _SHORT_TOKENS:
        first = 4
    elif count >= _LONG_TOKENS:
        first = 6
    else:
        raise ValueError(f"no acknowledgement subject: {subject!r}")
    if tokens[0] != b"$JS" or tokens[1] != b"ACK":
        raise ValueError(f"no acknowledgement subject: {subject!r}")
    return Delivery(int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 4]))


def deliveries_of(subject: bytes) -> int:
    """Return only the count of deliveries, as cheaply as can be: called for every lease.

    Raises ``ValueError`` when the subject is no acknowledgement subject.
    """
    tokens = subject.split(b".")
    count = len(tokens)
    if count == _SHORT_TOKENS:
        return int(tokens[4])
    if count >= _LONG_TOKENS:
        return int(tokens[6])
    raise ValueError(f"no acknowledgement subject: {subject!r}")
