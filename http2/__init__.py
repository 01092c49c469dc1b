"""HTTP/2 (RFC 9113): the same exchanges as `http1`, many on one connection."""
