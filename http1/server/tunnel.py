"""What follows an upgrade: the bytes of another protocol, until the client's end."""

from typing import Final


class Tunnel:
    """Decodes nothing, and is never complete; stands where a request has its body's decoder."""

    __slots__ = ()

    @property
    def is_complete(self) -> bool:
        return False

    def take(self, data: bytes, at: int, enough_bytes: int) -> tuple[bytes, int]:
        """Return up to ``enough_bytes`` bytes from offset ``at``, and the offset reached."""
        taken = data[at : at + enough_bytes]
        return taken, at + len(taken)

    def whole(self, data: bytes) -> int:  # noqa: ARG002  as `http1.body.ChunkedBody.whole`
        """Return 0: there are no chunks."""
        return 0

    def is_truncated(self, held_bytes: int) -> bool:  # noqa: ARG002
        """Return False: nothing was announced."""
        return False


TUNNEL: Final = Tunnel()
"""The only one that is needed: it has no state."""
