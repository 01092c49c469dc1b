"""Calls that outlive their connection, by their request ids."""
