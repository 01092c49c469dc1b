"""Tests of `gateway.cli.apply`."""
