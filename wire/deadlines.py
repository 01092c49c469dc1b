"""How long a caller waits for a response, as gateway and worker agree on it, in seconds.

Source: `docs/wire.md` §6.2.
"""

DEFAULT_POLL_S = 60
"""The poll window of a caller that sends no ``nvcf-poll-seconds``."""
MAX_POLL_S = 3600
"""The longest poll window a caller may ask for."""
RESPONSE_GRACE_S = 2.0
"""Added to the poll window, so that a worker which responds 202 exactly at its end still gets
through. Then the gateway responds 504."""
MAX_INVOCATION_S = 3605.0
"""Maximum time from the request head to the last byte of the response; then the gateway aborts."""
VANISHED_S = 45.0
"""Seconds without a sign of life after which the machine of a connection's peer counts as gone.

With the time between two checks it is less than a minute, and a network's failure that heals sooner
costs no connection.
"""
