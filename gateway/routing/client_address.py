"""The address of the client that sent a request."""

from http1.stream import Request


def client_address(request: Request) -> str:
    """Return the IP address of the client, empty if it is not known (a Unix socket)."""
    return request.peer
