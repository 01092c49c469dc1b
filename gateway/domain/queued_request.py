"""What is known of a request between its arrival and its end."""

from typing import NamedTuple


class QueuedRequest(NamedTuple):
    """A request that waits or is in progress.

    ``account`` is its caller's. ``position`` is its rank in the queue; 0: it is in progress.
    ``url`` is ``scheme://authority`` at which its caller reached the gateway.
    """

    function_id: str
    version_id: str
    account: str
    position: int
    url: str = ""
