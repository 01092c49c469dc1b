"""Which function, which version, which kind of request."""
