"""Decides what serves a request: an invocation, or an endpoint (attach, REST API, health)."""
