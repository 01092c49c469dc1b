"""The response to a call whose path begins with the name of its function."""

from http1.stream import Headers, ResponseWriter

_LOCATIONS = frozenset({b"location", b"content-location"})


class PrefixedResponse:
    """A `http1.stream.ResponseWriter` that leads redirects back to the function.

    The function knows nothing of the prefix: a ``/path`` that it redirects to is below it.
    """

    __slots__ = ("_client", "_here", "_prefix")

    def __init__(self, client: ResponseWriter, prefix: bytes, authority: bytes) -> None:
        """``prefix`` is without a slash at its end, ``authority`` that of the request."""
        self._client = client
        self._prefix = prefix
        self._here = (b"http://" + authority + b"/", b"https://" + authority + b"/")

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Send the head; its locations get the prefix."""
        self._client.send_head(
            status,
            [(n, self._outside(value) if n in _LOCATIONS else value) for n, value in headers],
            body_bytes,
        )

    def _outside(self, location: bytes) -> bytes:
        if location.startswith(b"/") and not location.startswith(b"//"):
            return self._prefix + location
        for here in self._here:
            if location.startswith(here):
                return here[:-1] + self._prefix + location[len(here) - 1 :]
        return location

    def send_data(self, data: bytes) -> None:
        """Pass it on."""
        self._client.send_data(data)

    def send_end(self) -> None:
        """Pass it on."""
        self._client.send_end()

    def abort(self) -> None:
        """Pass it on."""
        self._client.abort()

    def pause_reading(self) -> None:
        """Pass it on."""
        self._client.pause_reading()

    def resume_reading(self) -> None:
        """Pass it on."""
        self._client.resume_reading()

    def is_writing_paused(self) -> bool:
        """Ask the client."""
        return self._client.is_writing_paused()
