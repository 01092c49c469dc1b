"""One gateway process, put together."""
