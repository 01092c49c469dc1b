"""Telemetry of a gateway process: health checks, metrics and the access log."""
