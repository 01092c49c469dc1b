"""Demo inference server."""
