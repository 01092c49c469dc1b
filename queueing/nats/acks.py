"""How a lease is answered, and what the broker says about it in its acknowledgement subject.

Every message from a JetStream consumer names in its reply subject where the acknowledgement goes,
and there the numbers of this delivery stand (nats-server, "ADR-15 JetStream subjects"):

    $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>
    $JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.…  with at least eleven tokens
"""

ACK = b"+ACK"
HAND_BACK = b"-NAK"
PROGRESS = b"+WPI"
REJECT = b"+TERM"

_SHORT_TOKENS = 9
_LONG_TOKENS = 11


def deliveries_of(subject: bytes) -> int:
    """Return how often the message was delivered, from 1 on. Cheap: called for every lease.

    Raises ``ValueError`` when the subject is no acknowledgement subject.
    """
    tokens = subject.split(b".")
    count = len(tokens)
    if count == _SHORT_TOKENS:
        return int(tokens[4])
    if count >= _LONG_TOKENS:
        return int(tokens[6])
    raise ValueError(f"no acknowledgement subject: {subject!r}")
