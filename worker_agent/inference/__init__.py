"""The local inference server: forwarding requests to it, and whether it is healthy."""
