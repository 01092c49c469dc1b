"""Connections to the gateway processes that hold the clients (``spec/worker.md`` §3.4, §4.1)."""
