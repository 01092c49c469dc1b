"""The agent as a process: composition of its parts, admin endpoint and metrics."""
