"""A client that leaves: how soon the inference server learns that nobody waits for its response."""

import json
import time

from loadtests.client import ClientConnection, request_bytes
from loadtests.errors import MeasurementError
from loadtests.scenarios.small import BODY
from loadtests.stats import quantile
from loadtests.systems import Target

_PATH = "/linger"
_WARM_UP = 3


def leave(target: Target, clients: int) -> dict[str, float]:
    """Return quantiles of the time from a client's close to that at the inference server, in ms.

    One client after the other sends a call of 10 s and closes its connection once the inference
    server works on it. The inference server says when its own connection was closed.
    """
    with ClientConnection(target.inference()) as asking:
        for _ in range(_WARM_UP):
            _leave(target, asking)
        times_ns = sorted(_leave(target, asking) for _ in range(clients))
    return {
        "leave_p50": quantile(times_ns, 0.50) / 1e6,
        "leave_p99": quantile(times_ns, 0.99) / 1e6,
    }


def _leave(target: Target, asking: ClientConnection) -> int:
    """Return the nanoseconds between the two closes, by the clock that both programs share."""
    inference = target.inference()
    with ClientConnection(target) as client:
        client.send(request_bytes(target, "POST", _PATH, BODY))
        asking.exchange(request_bytes(inference, "POST", f"{_PATH}/begun"))
        left_ns = time.monotonic_ns()
    asking.exchange(request_bytes(inference, "POST", f"{_PATH}/closed"))
    closed_ns = int(json.loads(asking.body)["closed_ns"])
    if not closed_ns:
        raise MeasurementError("the call of a client that had left ran to its end")
    return closed_ns - left_ns
