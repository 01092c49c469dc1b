"""Bytes that wait for a window, on either side of a connection. Pure."""

from collections import deque


def take(pending: deque[bytes], size: int) -> bytes:
    """Remove the first ``size`` bytes of what waits, which are there, and return them."""
    parts, left = [], size
    while left:
        part = pending.popleft()
        if len(part) > left:
            pending.appendleft(part[left:])
            part = part[:left]
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
