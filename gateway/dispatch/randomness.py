"""Random bytes for ids and tokens."""

import os

_BUFFER_BYTES = 16 * 384
"""Bytes per system call: one call for many ids costs far less than one for each."""


class Randomness:
    """Random bytes from the kernel, fetched for many ids at once."""

    __slots__ = ("_at", "_bytes")

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def take(self) -> bytes:
        """Return 16 bytes that are returned only once."""
        at = self._at
        if at == len(self._bytes):
            self._bytes = os.urandom(_BUFFER_BYTES)
            at = 0
        self._at = at + 16
        return self._bytes[at : at + 16]
