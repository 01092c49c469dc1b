"""The cost of a full store: the gateway's start-up time, memory, and the first page of a list."""

import gc

from loadtests.client import ClientConnection, repeat, request_bytes
from loadtests.proc import Role
from loadtests.stats import quantile
from loadtests.systems import Target

PAGE = 500
"""Versions in the first page: as many as the gateway's commands request."""
_LIST_S = 2.0


def many(target: Target) -> dict[str, float]:
    """Measure a gateway after a restart; the list is timed on one warm connection.

    Memory is read after the list, and after the rows that were measured before.
    """
    api = target.api()
    request = request_bytes(api, "GET", f"/v2/nvcf/functions?limit={PAGE}")
    with ClientConnection(api) as connection:
        connection.exchange(request)
        gc.collect()
        times_ns = repeat(connection, request, _LIST_S)
    sizes = [process.rss_bytes for process in target.processes() if process.role is Role.FRONT]
    return {
        "many_ready": target.ready_s,
        "many_memory": max(sizes) / 1e6,
        "many_memory_all": sum(sizes) / 1e6,
        "many_list_p50": quantile(times_ns, 0.50) / 1e6,
        "many_list_p99": quantile(times_ns, 0.99) / 1e6,
    }
