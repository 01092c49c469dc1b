"""Decides what a request is for: an invocation, an attach call, the API or an endpoint."""
