"""Calls that outlive their connection."""
