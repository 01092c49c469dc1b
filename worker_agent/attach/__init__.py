"""Connections to the gateway processes that hold the clients (``docs/wire.md`` §5.2, §5.4)."""
