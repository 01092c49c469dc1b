"""Bodies of 100 MB, one at a time, down and up."""

import json
import time
from typing import Final

from loadtests.client import ClientConnection, request_bytes
from loadtests.errors import MeasurementError
from loadtests.systems import Target

BODY_BYTES: Final = 100_000_000
_WARM_UP_BYTES = 5_000_000
_REPEATS = 3
_PIECE = memoryview(bytes(256 * 1024))


def transfer(target: Target) -> dict[str, float]:
    """Return MB/s (10^6 bytes) over several bodies, first byte sent to last byte received."""
    with ClientConnection(target) as connection:
        _down(target, connection, _WARM_UP_BYTES)
        down_s = sum(_down(target, connection, BODY_BYTES) for _ in range(_REPEATS))
        _up(target, connection, _WARM_UP_BYTES)
        up_s = sum(_up(target, connection, BODY_BYTES) for _ in range(_REPEATS))
    megabytes = BODY_BYTES * _REPEATS / 1e6
    return {"down": megabytes / down_s, "up": megabytes / up_s}


def _down(target: Target, connection: ClientConnection, body_bytes: int) -> float:
    request = request_bytes(target, "GET", f"/download?bytes={body_bytes}")
    started = time.perf_counter()
    connection.exchange(request)
    elapsed_s = time.perf_counter() - started
    if connection.body_bytes != body_bytes:
        raise MeasurementError(f"{connection.body_bytes} of {body_bytes} bytes came down")
    return elapsed_s


def _up(target: Target, connection: ClientConnection, body_bytes: int) -> float:
    head = request_bytes(target, "POST", "/upload", body_bytes=body_bytes)
    started = time.perf_counter()
    connection.send(head)
    for sent in range(0, body_bytes, len(_PIECE)):
        connection.send(_PIECE[: body_bytes - sent])
    connection.receive()
    elapsed_s = time.perf_counter() - started
    received = json.loads(connection.body)["received"]
    if received != body_bytes:
        raise MeasurementError(f"{received} of {body_bytes} bytes went up")
    return elapsed_s
