"""A small streaming HTTP/1.1 client: callbacks, no task per request."""
