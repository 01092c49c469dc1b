"""A small streaming HTTP/1.1 client on `httptools`: callbacks, no task per request."""
