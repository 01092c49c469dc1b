"""The server side of HTTP/2."""
