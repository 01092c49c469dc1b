"""Demo functions."""
