"""Authentication of requests, and the scopes that authorize them."""
