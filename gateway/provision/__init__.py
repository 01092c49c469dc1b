"""Deployments to running instances: one leader keeps what is there equal to what was asked for."""
