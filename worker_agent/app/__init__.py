"""The agent as a process: what is connected to what, and what is seen of it from outside."""
