"""The worker agent: pull, forward, stream back, drain."""
