"""The invocation gateway."""
