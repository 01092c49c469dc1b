"""Runs the instances of deployments: one leader makes what runs match what is deployed."""
